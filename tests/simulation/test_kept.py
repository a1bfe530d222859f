"""A process finds cached values by content, so an edited file is another file."""

import ast
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.cli.main import run as cloister
from cloister.files import stamp_of
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.recipe import Recipe, read_run_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import SimulatedSites, prepare, units_of, workspace_of
from cloister.training.machine import MachineConfig
from tests.recipe.test_old_runs import old_digest
from tests.support.models import tiny_bert
from tests.support.studies import small_recipe

PACKAGE = Path(__file__).parents[2] / "cloister"
# Parameters that tell of a file's content, or of what a recipe or configuration names.
STAMPS = {"stamp", "stamps", "ctime_ns"}


def edit(path: Path, old: str, new: str) -> None:
    """Changes a file so that neither its size nor its time of writing tells."""
    before = path.stat()
    content = path.read_text(encoding="utf-8")
    assert len(old) == len(new)
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def texts(recipe: Recipe) -> set[str]:
    return {r.text for site in prepare(recipe).sites.values() for r in site}  # type: ignore[union-attr]


@pytest.mark.parametrize("settled", [False, True])
def test_records_that_were_edited_between_two_studies_are_the_new_ones(
    tmp_path: Path, settled: bool
) -> None:
    recipe = small_recipe(tmp_path)
    train = tmp_path / "train.jsonl"
    if settled:  # written long ago: its hash is not computed at each look
        os.utime(train, (1e9, 1e9))
    assert "itchy rash" in texts(recipe)
    edit(train, '"itchy rash"', '"yellow eye"')
    assert texts(recipe) & {"itchy rash", "yellow eye"} == {"yellow eye"}
    assert texts(recipe) == texts(recipe)


def test_a_second_simulation_in_a_process_trains_on_the_edited_records(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "privacy.enabled=false", "federation.num_rounds=1")
    scores = []
    for number in range(3):
        place = RunDirectory.create(tmp_path / f"run-{number}", recipe)
        scores.append(simulate(recipe, place).test["loss"])
        if number == 1:  # other words for the most frequent label, of the same length
            edit(tmp_path / "train.jsonl", "chest", "fever")
    assert scores[0] == scores[1] != scores[2]


def test_a_study_that_runs_keeps_the_records_that_it_began_with(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    study = prepare(recipe)
    sites = SimulatedSites(recipe, tmp_path / "ledgers", study)
    before = units_of(study, "east")
    edit(tmp_path / "train.jsonl", "chest", "fever")
    assert sites.prepared is study
    assert units_of(study, "east") is before
    assert units_of(prepare(recipe), "east") != before


def test_another_base_in_the_same_folder_is_another_workspace(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    before = workspace_of(prepare(recipe))
    assert workspace_of(prepare(recipe)) is before
    other = tiny_bert(tmp_path / "other", seed=7)
    (tmp_path / "base" / "model.safetensors").write_bytes(
        (other / "model.safetensors").read_bytes()
    )
    assert workspace_of(prepare(recipe)).base_sha256 != before.base_sha256


def test_a_stamp_tells_content_apart_where_size_and_times_do_not(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_text("one")
    os.utime(path, (1e9, 1e9))
    first = stamp_of(path)
    edit(path, "one", "two")
    second = stamp_of(path)
    assert (first.size, first.mtime_ns) == (second.size, second.mtime_ns)
    assert first.sha256 != second.sha256


def cached(source: str) -> Iterator[tuple[str, set[str], str]]:
    """Functions whose results a module keeps: name, parameters, their types as written."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            kept = [ast.unparse(decorator) for decorator in node.decorator_list]
            if any("cache" in decorator for decorator in kept):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                types = " ".join(ast.unparse(a.annotation) for a in arguments if a.annotation)
                yield node.name, {a.arg for a in arguments}, types


def found_by_path(source: str) -> list[str]:
    """Functions that keep what they made of a file under the file's name alone."""
    return [
        name
        for name, parameters, types in cached(source)
        if (
            {"path", "folder", "file", "ledger"} & parameters
            or any(kind in types for kind in ("Path", "Recipe", "Config"))
        )
        and not STAMPS & parameters
    ]


def test_no_function_keeps_what_a_path_named() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    # Parsing what has no such decorator would find nothing in it.
    with_cache = {path: text for path, text in sources.items() if "cache" in text}
    assert len(with_cache) > 10
    found = [(path, name) for path, text in with_cache.items() for name in found_by_path(text)]
    assert found == []


@pytest.mark.parametrize(
    "parameters", ["recipe: Recipe", "ledger: Path", "path: str", "model: ModelConfig, seed: int"]
)
def test_a_cache_by_path_would_be_seen(parameters: str) -> None:
    assert found_by_path(f"@lru_cache(maxsize=2)\ndef f({parameters}): ...") == ["f"]
    assert found_by_path(f"@cache\ndef f({parameters}, stamp: Stamp): ...") == []


class CrashError(Exception):
    """A machine that goes down."""


def crash(report: object) -> None:
    raise CrashError


@pytest.mark.parametrize("how", ["in Python", "on the command line"])
def test_a_run_of_the_version_before_is_resumed_under_its_digest(tmp_path: Path, how: str) -> None:
    recipe = small_recipe(tmp_path / "study", "federation.num_rounds=3")
    begun = dataclasses.replace(recipe, begun=MachineConfig(physical_batch_tokens=2048))
    place = RunDirectory.create(tmp_path / "run", begun)
    with pytest.raises(CrashError):
        simulate(begun, place, events=Events(on_round=crash))
    # The file as that version wrote it, and the digest as it computed it.
    assert "format" not in place.recipe_file.read_text(encoding="utf-8")
    tables = old_tables_of(prepare(recipe).recipe)
    if how == "in Python":
        simulate(place.recipe(), RunDirectory.reopen(place.path))
    else:
        assert cloister(["simulate", "--resume", "--out", str(place.path)]) == 0
    assert len(place.metrics()) == 3
    entries = [e.fields for e in LedgerFile(place.ledger("east")).entries()]
    studies = {fields["study"] for fields in entries if fields["kind"] == "reserve"}
    assert studies == {old_digest(tables)} != {prepare(recipe).recipe.digest()}
    assert Ledger(place.ledger("east")).steps == 6


def old_tables_of(recipe: Recipe) -> dict[str, dict[str, object]]:
    """A study's tables as the version before made them: what is absent was left out."""
    tables: dict[str, dict[str, object]] = {}
    for name, section in recipe.sections().items():
        if name != "machine":
            values = dataclasses.asdict(section)  # type: ignore[call-overload]
            if name == "training":  # what that version had by default
                values["physical_batch_tokens"] = 2048
            tables[name] = {k: v for k, v in values.items() if v is not None}
    return tables


@pytest.mark.parametrize("labels_stated", [True, False])
def test_a_new_run_is_resumed_whatever_its_defaults_become(
    tmp_path: Path, labels_stated: bool
) -> None:
    recipe = small_recipe(tmp_path / "study", "federation.num_rounds=2")
    place = RunDirectory.create(tmp_path / "run", recipe)
    with pytest.raises(CrashError):
        simulate(recipe, place, events=Events(on_round=crash))
    if not labels_stated:  # as versions before did, whose digest covered them all the same
        place.recipe_file.write_text(recipe.to_toml(), encoding="utf-8")
    resumed = read_run_recipe(place.recipe_file)
    digest = prepare(recipe).recipe.digest()
    assert prepare(resumed).recipe.digest() == digest
    assert (resumed.digest() == digest) == labels_stated
    simulate(resumed, RunDirectory.reopen(place.path))
    assert len(place.metrics()) == 2
    assert read_run_recipe(place.recipe_file).digest() == digest
