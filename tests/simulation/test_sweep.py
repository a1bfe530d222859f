"""A sweep over seeds in one folder can be resumed and is never mixed up; its comparison."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.errors import RecipeError, UsageError
from cloister.server.run_directory import RunDirectory
from cloister.simulation.compare import compare
from cloister.simulation.sweep import open_sweep, plan_sweep
from cloister.simulation.sweep_file import read_sweep
from tests.support.studies import small_assignments
from tests.test_import_order import loaded

SWEEP = ["--sweep", "privacy.epsilon=4,8", "--seeds", "2"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def sets(study: Path) -> list[str]:
    return [word for value in small_assignments(study / "study") for word in ("--set", value)]


@pytest.fixture(scope="module")
def swept(study: Path, sets: list[str]) -> Path:
    """A sweep of two ε over two seeds."""
    assert run(["simulate", *sets, *SWEEP, "--out", str(study / "out")]) == 0
    return study / "out"


def test_a_sweep_runs_its_grid_and_is_compared(
    swept: Path, sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(p.name for p in swept.iterdir() if p.is_dir()) == [
        "privacy.epsilon=4_seed=0",
        "privacy.epsilon=4_seed=1",
        "privacy.epsilon=8_seed=0",
        "privacy.epsilon=8_seed=1",
    ]
    assert (swept / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert run(["compare", str(swept), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["fields"], found["notes"]) == (
        "accuracy",
        ["privacy.epsilon"],
        [],
    )
    for group, epsilon in zip(found["groups"], (4.0, 8.0), strict=True):
        assert group["settings"] == {"privacy.epsilon": epsilon}
        assert group["seeds"] == [0, 1]
        first, second = group["scores"]
        assert group["mean"] == pytest.approx((first + second) / 2)
        # Two values lie half their distance from their mean: s.d. = |a - b| / √2.
        assert group["deviation"] == pytest.approx(abs(first - second) / 2**0.5)
        assert 0.95 * epsilon < group["promise"]["epsilon"] <= epsilon
        assert group["promise"]["delta"] == 1e-5
        rows = [RunDirectory.reopen(Path(path)).metrics() for path in group["runs"]]
        sent = [sum(r["bytes_up"] + r["bytes_down"] for r in one) for one in rows]
        assert group["bytes"] == sum(sent) / 2


def test_a_table_states_delta_unit_and_spread(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(swept), "--out", str(tmp_path / "plot.png")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "ε: the largest of a run's sites, at δ = 1e-05, for one record added or removed" in told
    assert "±" in told
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert run(["compare", str(swept), "--out", str(tmp_path / "none" / "plot.png")]) == 3


def test_a_setting_is_one_word_in_a_terminal_of_80_columns(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    assert run(["compare", str(swept)]) == 0
    shown = capsys.readouterr().out
    for group in compare([swept]).groups:
        assert group.label in shown


def test_finished_runs_are_skipped_and_others_go_on(
    swept: Path, sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in swept.glob("*/metrics.jsonl")}
    (swept / "privacy.epsilon=8_seed=1" / "result.json").unlink()
    (swept / "privacy.epsilon=8_seed=1" / "adapter" / "README.md").unlink()
    options = [*sets, *SWEEP, "--out", str(swept), "--json"]
    assert run(["simulate", *options]) == 0
    assert "3 of 4 runs were finished before" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in swept.glob("*/metrics.jsonl")} == before
    assert (swept / "privacy.epsilon=8_seed=1" / "result.json").is_file()


def test_another_recipe_or_sweep_is_not_mixed_in(
    swept: Path, sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(swept)]
    assert run(["simulate", *sets, "--set", "lora.r=2", *SWEEP, *out]) == 2
    assert "was run with another recipe" in capsys.readouterr().err
    assert run(["simulate", *sets, "--sweep", "lora.r=1,2", *out]) == 2
    assert "has a sweep of privacy.epsilon" in capsys.readouterr().err


def test_runs_that_differ_in_more_than_the_sweep_say_so(
    swept: Path, sets: list[str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert run(["simulate", *sets, "--set", "lora.r=2", "--out", str(other)]) == 0
    found = compare([swept, other])
    assert found.notes == ("the runs differ in more than the sweep: lora.r",)
    first = swept / "privacy.epsilon=4_seed=0"
    assert "none alone explains a score: " in compare([first, other]).notes[0]
    assert compare([first]).groups[0].deviation is None


def test_a_comparison_without_a_picture_loads_nothing_heavy(swept: Path) -> None:
    program = f"from cloister.cli.main import run\nassert run(['compare', {str(swept)!r}]) == 0"
    assert loaded(program) == set()


def test_an_unfinished_run_is_left_out_and_named(swept: Path, tmp_path: Path) -> None:
    import shutil

    whole = swept / "privacy.epsilon=4_seed=0"
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    (part / "result.json").unlink()
    (part / "adapter" / "README.md").unlink()
    found = compare([whole, part])
    assert [run.path for run in found.groups[0].runs] == [whole]
    assert found.notes == ("part is left out: not finished, 2 rounds closed",)
    with pytest.raises(UsageError, match="no finished run"):
        compare([part])


def test_a_run_of_before_results_were_written_is_read(swept: Path, tmp_path: Path) -> None:
    import shutil

    whole, old = swept / "privacy.epsilon=4_seed=1", tmp_path / "old"
    shutil.copytree(whole, old)
    (old / "result.json").unlink()
    (ours,), (theirs,) = compare([whole]).groups, compare([old]).groups
    assert (ours.mean, ours.promise, ours.bytes) == (theirs.mean, theirs.promise, theirs.bytes)


def test_a_ledger_that_was_taken_away_leaves_no_epsilon(swept: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(swept / "privacy.epsilon=4_seed=0", bare)
    shutil.rmtree(bare / "ledgers")
    assert compare([bare]).groups[0].promise is None


@pytest.mark.parametrize(
    ("sweeps", "told"),
    [
        (["epsilon=1,2"], "the section is missing; privacy.epsilon"),
        (["privacy.epsilon=1", "privacy.epsilon=2"], "given twice"),
        (["study.seed=1,2"], "give --seeds N"),
        (["privacy.epsilon=1,1"], "duplicate value"),
        (["data.fold=1/2,2/2"], "--folds K"),
        (["privacy.epsilon="], "values separated by commas"),
        (["privacy.epsilon=1,,2"], "values separated by commas"),
        (["federation.num_rounds=" + ",".join(map(str, range(1, 1003)))], "at most 1,000"),
        (["privacy.epsilon=1,-1"], "-1 given"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(sweeps: list[str], told: str) -> None:
    with pytest.raises((UsageError, RecipeError), match=told):
        plan_sweep(None, [], sweeps, 1)


def test_a_grid_runs_all_settings_of_one_seed_before_the_next() -> None:
    sweep = plan_sweep(None, ["study.seed=7"], ["lora.r=1,2", "task.labels=['a','b'],['c','d']"], 2)
    cells = [(r.recipe.study.seed, r.recipe.lora.r, r.recipe.task.labels) for r in sweep.runs]
    labels = [("a", "b"), ("c", "d")]
    assert cells == [(seed, r, pair) for seed in (7, 8) for r in (1, 2) for pair in labels]
    assert len({run.name for run in sweep.runs}) == 8


def test_a_folder_that_is_no_sweep_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not a sweep"):
        open_sweep(tmp_path, plan_sweep(None, [], [], 2))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_sweep_that_failed_before_any_charge_does_not_block_the_next(tmp_path: Path) -> None:
    wrong = plan_sweep(None, ["lora.use_dora=true"], ["lora.r=1,2"], 1)
    opened = open_sweep(tmp_path / "out", wrong)
    for planned in wrong.runs:
        place = opened[planned.name]
        assert place is not None
        RunDirectory.create(place.path, planned.recipe)
    right = plan_sweep(None, [], ["lora.r=1,2"], 1)
    assert all(place is not None for place in open_sweep(tmp_path / "out", right).values())
    other = plan_sweep(None, [], ["privacy.epsilon=1,2"], 1)
    assert open_sweep(tmp_path / "out", other).keys() == {run.name for run in other.runs}
    assert read_sweep(tmp_path / "out").runs == tuple(run.name for run in other.runs)


@pytest.mark.parametrize("options", [["--resume"], ["--dry-run"], ["--twin"]])
def test_what_is_for_one_run_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "--seeds", "2", *options]) == 2
    assert "it is for one run" in " ".join(capsys.readouterr().err.split())
