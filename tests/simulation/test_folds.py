"""Cross-validation: every unit is held out once, and its k - 1 trainings are composed."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.cli.main import run
from cloister.data.config import DataConfig, fold_of
from cloister.data.records import TextRecord
from cloister.errors import DataError, RecipeError, UsageError
from cloister.privacy.accounting import epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.units import Unit
from cloister.recipe import Recipe, parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.folds import _mixes as mixes
from cloister.simulation.folds import composed, folds_note, held_out
from cloister.simulation.plans import plans_of
from cloister.simulation.sweep import plan_folds
from tests.support.examples import tries
from tests.support.studies import small_assignments

records = st.lists(
    st.builds(
        TextRecord,
        st.sampled_from("abcdefgh"),
        st.sampled_from("xy"),
        site=st.none() | st.just("east"),
        person=st.sampled_from("pqrstuv"),
    ),
    min_size=8,
    max_size=30,
)


@settings(max_examples=tries(60), deadline=None)
@given(records, st.sampled_from([Unit.RECORD, Unit.PERSON]), st.integers(2, 4), st.integers(0, 3))
def test_a_unit_is_held_out_once_and_wherever_others_are(
    found: list[TextRecord], unit: Unit, folds: int, seed: int
) -> None:
    def key(record: TextRecord) -> object:
        return record.person if unit is Unit.PERSON else (record.text, record.label)

    times: dict[object, int] = {}
    for part in range(1, folds + 1):
        try:
            train, test = held_out(found, f"{part}/{folds}", unit, seed)
        except DataError:  # so few units that one side is empty
            return
        own, other = {key(r) for r in train}, {key(r) for r in test}  # type: ignore[arg-type]
        assert not own & other
        assert len(train) + len(test) == len(found)
        for one in other:
            times[one] = times.get(one, 0) + 1
        # Without one unit all others stay where they are.
        less = [record for record in found if key(record) != key(found[0])]
        try:
            left, _ = held_out(less, f"{part}/{folds}", unit, seed)
        except DataError:
            continue
        assert left == [record for record in train if key(record) != key(found[0])]  # type: ignore[arg-type]
    assert set(times.values()) == {1}


def test_copies_of_a_record_are_held_out_with_it() -> None:
    # Else it were in as many trainings as there are folds, and k - 1 plans were too few.
    found = [
        TextRecord(f"note {n}{copy}", "x", unit=f"unit {n}")
        for n in range(30)
        for copy in ("", " anew", " again")
    ]
    for part in range(1, 6):
        train, test = held_out(found, f"{part}/5", Unit.RECORD, 0)
        assert not {record.unit for record in train} & {record.unit for record in test}


def test_another_seed_draws_other_parts() -> None:
    found = [TextRecord(f"note {n}", "x") for n in range(100)]
    parts = {tuple(map(str, held_out(found, "1/2", Unit.RECORD, seed)[1])) for seed in range(3)}
    assert len(parts) == 3


def test_persons_are_needed_where_they_are_the_units() -> None:
    with pytest.raises(DataError, match="record 2 names no person"):
        held_out([TextRecord("a", "x", person="p"), TextRecord("b", "x")], "1/2", Unit.PERSON, 0)


def test_the_folds_together_cost_all_but_one_of_their_plans() -> None:
    recipe = parse_recipe("", ["privacy.epsilon=2"])
    (plan,) = set(plans_of(recipe, ("site 0",)).values())
    event = plan.event(plan.num_rounds * plan.local_steps)
    for folds, times in ((2, 1), (5, 4)):
        found = composed(recipe, folds)
        assert found is not None
        assert found.epsilon == epsilon([event] * times, plan.delta)
    one, five = composed(recipe, 2), composed(recipe, 5)
    assert one is not None
    assert five is not None
    assert one.epsilon == plan.epsilon_after(plan.num_rounds)
    # Four Gaussian releases of one size are one with half the noise: ε between √4 and 4 times.
    assert math.sqrt(4) * one.epsilon * 0.9 < five.epsilon < 4 * one.epsilon
    assert "in 4; no ε covers the scores" in folds_note(recipe, 5)
    unequal = ["data.sites=2", "data.public_records=[2000, 20000]", "privacy.epsilon=2"]
    of_sites = composed(parse_recipe("", unequal), 5)
    small = composed(parse_recipe("", [*unequal, "data.public_records=2000"]), 5)
    large = composed(parse_recipe("", [*unequal, "data.public_records=20000"]), 5)
    assert of_sites is not None
    assert small is not None
    assert large is not None
    assert small.epsilon != large.epsilon
    # A unit is dealt to a site anew in each fold, so mixes of the two plans are looked at too.
    assert of_sites.epsilon >= max(small.epsilon, large.epsilon)
    assert of_sites.epsilon < 1.2 * max(small.epsilon, large.epsilon)
    assert composed(parse_recipe("", ["privacy.enabled=false"]), 5) is None


def test_a_fold_declares_the_records_that_are_left() -> None:
    sweep = plan_folds(None, ["data.public_records=1000", "data.test=none.jsonl"], 5)
    assert [one.recipe.data.fold for one in sweep.runs] == [f"{n}/5" for n in range(1, 6)]
    assert {one.recipe.data.public_records for one in sweep.runs} == {800}
    listed = plan_folds(None, ["data.public_records=[1000, 900, 700, 601]"], 2)
    assert listed.runs[0].recipe.data.public_records == (500, 450, 350, 300)
    assert "fold" not in Recipe().document()


@pytest.mark.parametrize(
    "text", ["", "1", "0/5", "6/5", "1/1", "1/21", "a/5", "1/5/5", "1/-5", "²/5"]
)
def test_a_fold_that_there_is_not_is_refused(text: str) -> None:
    assert fold_of(text) is None
    with pytest.raises(UsageError, match="fold: "):
        DataConfig(fold=text)


def test_folds_are_run_compared_and_their_sum_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for v in small_assignments(tmp_path / "study") for word in ("--set", v)]
    folded = ["simulate", *given, "--set", "federation.num_rounds=1", "--folds", "2"]
    assert run([*folded, "--seeds", "2"]) == 2
    assert "would be charged to the same records again" in " ".join(capsys.readouterr().err.split())
    out = tmp_path / "out"
    assert run([*folded, "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    assert "all 2 folds together: ε = " in " ".join(shown.err.split())
    found = json.loads(shown.out)
    (group,) = found["groups"]
    assert len(group["runs"]) == 2
    assert any("all 2 folds together" in note for note in found["notes"])
    told_records = [RunDirectory.reopen(out / f"fold={n}").recipe().data for n in (1, 2)]
    assert [data.fold for data in told_records] == ["1/2", "2/2"]
    # What was held out of one run was trained on in the other: 80 records in all.
    counts = [
        json.loads((out / f"fold={n}" / "result.json").read_text())["census"]["records"]
        for n in (1, 2)
    ]
    assert sum(counts) == 80


def test_a_deployment_takes_no_folds(tmp_path: Path) -> None:
    from cloister.deployment.coordinator.deployed import resolved_recipe

    path = tmp_path / "recipe.toml"
    path.write_text('[data]\nfold = "1/5"\n')
    members = {"east": SimpleNamespace(public_records=10_000)}
    with pytest.raises(RecipeError, match=r"data\.fold: given"):
        resolved_recipe(path, [], members)  # type: ignore[arg-type]


def test_many_different_sites_are_bounded_by_one_that_is_worse_than_all() -> None:
    events = [
        GaussianEvent(noise_multiplier=1 + 0.1 * n, sample_rate=0.01 + 0.002 * n, steps=100 + n)
        for n in range(8)
    ]
    trainings = [(event,) for event in events]
    (bound,) = mixes(trainings, 4)
    worst = epsilon(bound, 1e-5)
    assert all(epsilon([event] * 4, 1e-5) < worst for event in (events[0], events[-1]))
    assert len(list(mixes(trainings[:2], 4))) == 5
