"""A simulation that holds records out trains on the others, and its adapter is scored on them."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.data.config import DataConfig
from cloister.data.records import Record
from cloister.errors import DataError, RecipeError, UsageError
from cloister.export.adapter_folder import load_released
from cloister.simulation.held_apart import held_apart
from cloister.simulation.plans import plans_of
from cloister.simulation.study import held_out_of, prepare, units_of
from cloister.training.evaluation import evaluate
from tests.support.studies import small_assignments, small_recipe

SHARE = ("data.held_out_share=0.5", "data.public_records=60", "data.person=person")


def test_what_a_site_holds_out_is_in_no_unit_and_the_plan_stays(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, *SHARE)
    plain = small_recipe(tmp_path, *SHARE[1:])
    found, whole = prepare(recipe), prepare(plain)
    assert plans_of(recipe, found.names) == plans_of(plain, whole.names)
    assert recipe.digest() != plain.digest()
    for name, records in whole.sites.items():
        apart, used = found.held_out[name], found.sites[name]
        assert 0 < len(apart) < len(records)
        assert sorted(map(repr, [*apart, *used])) == sorted(map(repr, records))
        assert {r.person for r in apart}.isdisjoint({r.person for r in used})
        assert len(units_of(found, name).units) == len(used)
    assert whole.held_out == {}
    other = prepare(small_recipe(tmp_path, *SHARE, "study.seed=1"))
    assert other.held_out != found.held_out


def test_a_held_out_person_is_one_unit_with_all_records_on_one_side(tmp_path: Path) -> None:
    persons = ("privacy.unit=person", "data.partition=person", "privacy.evaluation_rounds=[1]")
    recipe = small_recipe(tmp_path, *SHARE, *persons, "privacy.max_records_per_person=3")
    found = prepare(recipe)
    for name, records in found.held_out.items():
        apart, trained = held_out_of(found, name), found.sites[name]
        assert apart is not None
        held = {record.person for record in records}
        assert held.isdisjoint({record.person for record in trained})
        # Four records each, of which three count, in one vector of norm at most 1.
        assert (len(records), [len(unit) for unit in apart.units]) == (
            4 * len(held),
            [3] * len(held),
        )


@pytest.mark.parametrize("train", ["both", "b-kept"])
def test_a_run_is_scored_on_what_each_site_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: str
) -> None:
    plain = ("privacy.enabled=false", f"lora.train={train}")
    sets = [*small_assignments(tmp_path / "study"), *SHARE, *plain]
    out = tmp_path / "run"
    given = [word for one in sets for word in ("--set", one)]
    assert run(["simulate", *given, "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(out), "--held-out", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    apart = prepare(small_recipe(tmp_path / "study", *SHARE, *plain)).held_out
    assert document["sites"].keys() == apart.keys()
    for name, records in apart.items():
        own = f"personal/{name}" if train == "b-kept" else "adapter"
        _, workspace = load_released(out / own)
        scores = evaluate(workspace.network, workspace.task, workspace.encode(records), 512)
        found = {key: one["value"] for key, one in document["sites"][name]["scores"].items()}
        assert found == pytest.approx(dict(scores.metrics), abs=1e-6)
    assert run(["evaluate", str(out), "--held-out"]) == 0
    shown = capsys.readouterr()
    assert "no ε covers" in shown.err
    assert max(map(len, shown.out.splitlines())) <= 80  # no row is broken
    for words in (["--held-out", "--data", "x"], [], ["--held-out", "--plot", "x.png"]):
        assert run(["evaluate", str(out), *words]) == 2
    assert run(["evaluate", str(out / "adapter"), "--held-out"]) == 0  # its run is beside it


def test_a_site_without_records_on_a_side_is_refused() -> None:
    one: list[Record] = []
    with pytest.raises(DataError, match="leaves none on one side"):
        held_apart({"east": one}, 0.5, 0)
    with pytest.raises(UsageError, match=r"held_out_share: 0\.1 of the declared 200 is 20"):
        DataConfig(held_out_share=0.1, public_records=(400, 200))


def test_a_recipe_says_too_small_a_share_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.held_out_share: 0\.5 of the declared 40 is 20"):
        small_recipe(tmp_path, "data.held_out_share=0.5")
