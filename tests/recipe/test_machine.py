"""Machine settings belong to the machine and are no part of a study."""

import dataclasses
import re
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from cloister.client.site_file import EXAMPLE, read_site
from cloister.errors import RecipeError, RefusedError
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from cloister.training.config import TrainingConfig
from cloister.training.machine import MachineConfig, on_machine
from tests.support.studies import small_recipe

SECTION = "\n[machine]\nphysical_batch_tokens = 64\nfrozen_cache_gib = 0\n"


def test_a_site_s_file_has_a_section_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert read_site(path).machine == MachineConfig()
    path.write_text(EXAMPLE + SECTION, encoding="utf-8")
    small = MachineConfig(physical_batch_tokens=64, frozen_cache_gib=0.0)
    assert read_site(path).machine == small
    assert on_machine(TrainingConfig(), small).physical_batch_tokens == 64


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[machine]\nthreads = 3", "machine.threads: unknown key"),
        ("[machine]\nphysical_batch_tokens = 0", "machine.physical_batch_tokens: 0 given"),
        ("[machine]\nfrozen_cache_gib = nan", "machine.frozen_cache_gib: nan given"),
        ("[machine]\ndevice = 'gpu'", "machine.device: 'gpu' given"),
        ("[machine]\ndevice = 'cuda:x'", "machine.device: 'cuda:x' given"),
        ("[machine]\nattention = 'flash'", "machine.attention: 'flash' given"),
        ("[machine]\ncompile = true", "torch.compile cannot trace layers"),
        ("[machine]\nprocesses = 0", "machine.processes: 0 given"),
        ("[machine]\nprocesses = 2\ndevice = 'cuda:1'", "set device = "),
        ("[[machine]]", "a section [machine] is needed"),
    ],
)
def test_what_a_machine_has_not_is_refused_by_name(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f"{EXAMPLE}\n{line}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_site(path)
    assert said in str(caught.value)


def test_the_example_s_section_is_valid_once_it_is_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    start = EXAMPLE.index("# [machine]")
    path.write_text(EXAMPLE[:start] + re.sub("(?m)^# ", "", EXAMPLE[start:]), encoding="utf-8")
    assert read_site(path).machine == MachineConfig()


def test_a_simulated_site_spends_what_the_recipe_s_file_says(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", "machine.physical_batch_tokens=64")
    place = RunDirectory.create(tmp_path / "run", recipe)
    begin_ledgers(prepare(recipe), place)
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})
    site, _ = SimulatedSites(recipe, place.path / "ledgers")(context)
    assert site.training.physical_batch_tokens == 64
    assert place.recipe().machine == recipe.machine
    assert recipe.digest() == small_recipe(tmp_path / "study").digest()


def test_a_run_s_file_is_a_recipe_to_start_from() -> None:
    recipe = parse_recipe("", ["strategy.name=fedadam", "machine.frozen_cache_gib=1"])
    again = parse_recipe(recipe.to_toml(), ["data.person=p", "privacy.unit=person"])
    person = dataclasses.replace(recipe.data, person="p")
    assert again.data == person
    assert again.machine == recipe.machine
    assert again.strategy == recipe.resolved().strategy


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_a_device_is_named_where_it_runs_and_is_no_part_of_a_study(
    tmp_path: Path, device: str
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f'{EXAMPLE}\n[machine]\ndevice = "{device}"\n', encoding="utf-8")
    expected = None if device == "auto" else device
    assert read_site(path).machine.device == expected
    recipe = parse_recipe("", [f"machine.device={device}"])
    assert recipe.machine.device == expected
    assert recipe.digest() == parse_recipe("").digest()
    assert parse_recipe(recipe.to_toml()).machine == recipe.machine


def test_processes_are_the_machine_s_and_no_part_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    for given, expected in ((1, None), (4, 4)):
        path.write_text(f"{EXAMPLE}\n[machine]\nprocesses = {given}\n", encoding="utf-8")
        assert read_site(path).machine.processes == expected
        recipe = parse_recipe("", [f"machine.processes={given}"])
        assert recipe.machine.processes == expected
        assert recipe.digest() == parse_recipe("").digest()
        assert parse_recipe(recipe.to_toml()).machine == recipe.machine
    assert "processes" not in parse_recipe("").to_toml()
    assert parse_recipe("", ["machine.compile=false"]).machine == parse_recipe("").machine


def test_a_simulation_on_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = small_recipe(tmp_path / "study", "machine.device=cuda")
    with pytest.raises(RefusedError, match="the CPU is not used"):
        workspace_of(prepare(recipe))
