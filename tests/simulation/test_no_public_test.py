"""Studies of consortia without any public records: the sites' private evaluations are the score."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cloister as cl
from cloister.cli.main import run
from cloister.data.records import TextRecord
from cloister.deployment.coordinator.deployed import DeployedStudy, resolved_recipe
from cloister.deployment.coordinator.ports import Journal
from cloister.errors import DataError, RecipeError, UsageError
from cloister.recipe import Recipe, parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.early import refuse_early
from cloister.simulation.measured import measure
from cloister.simulation.twin import simulate_with_twin
from cloister.strategies.strategy import ServerState
from cloister.tasks.public_labels import study_labels
from tests.client.test_evaluating import SETTINGS
from tests.support.models import tiny_bert
from tests.support.studies import NOTES, small_assignments

LABELS = f"task.labels={sorted(NOTES)}"


def assignments(folder: Path) -> list[str]:
    """The small study without its test set, its labels from the code book."""
    given = [one for one in small_assignments(folder) if not one.startswith("data.test=")]
    return [*given, *SETTINGS, "federation.num_rounds=2", "privacy.evaluation_rounds=[2]", LABELS]


def recipe_of(folder: Path, *more: str) -> Recipe:
    return parse_recipe("", [*assignments(folder), *more])


def test_a_study_without_public_records_is_scored_by_its_sites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for one in assignments(tmp_path / "study") for word in ("--set", one)]
    out = tmp_path / "run"
    assert run(["simulate", "--no-twin", "--out", str(out), *given]) == 0
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert "no public test set" in told
    assert "private evaluation" in told
    (evaluation,) = RunDirectory(out).evaluations()
    assert "accuracy" in evaluation["scores"]
    assert all("test" not in row for row in RunDirectory(out).metrics())
    card = (out / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "None: the study had no public test set" in card
    assert "## Scores on the sites' held-out records" in card
    assert "learnt nothing" not in card
    assert "Scores are of one public test set" not in card
    assert "any score" not in card
    assert "- scores on public records: there was no public test set" in card
    with pytest.raises(UsageError, match="has no public test set"):
        measure(out)


def test_private_records_are_never_the_test_set(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "study")
    assert recipe.data.test_source is None
    refuse_early(recipe)
    with pytest.raises(RecipeError, match=r"data\.test: missing.*privacy\.evaluation_rounds"):
        parse_recipe("", [*small_assignments(tmp_path / "s")[:3], "data.train='dir/a.csv'"])


def test_labels_come_from_the_code_book_then(tmp_path: Path) -> None:
    bare = [one for one in assignments(tmp_path / "study") if one != LABELS]
    with pytest.raises(RecipeError, match=r"task\.labels: missing"):
        parse_recipe("", bare)
    unknown = TextRecord(text="x", label="b")
    with pytest.raises(DataError, match=r"not the study's: b; task\.labels must name every label"):
        study_labels(("a",), "sequence-classification", {"train": [unknown]}, {})


def test_a_twin_without_a_score_is_refused_before_anything_is_charged(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "study")
    place = RunDirectory.create(tmp_path / "run", recipe)
    with pytest.raises(UsageError, match="--twin"):
        simulate_with_twin(recipe, place)
    assert not place.heads()


@pytest.mark.parametrize("many", [("--seeds", "2"), ("--sweep", "privacy.epsilon=3,8")])
def test_runs_without_a_score_are_not_compared_and_none_is_begun(
    many: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for one in assignments(tmp_path / "study") for word in ("--set", one)]
    out = tmp_path / "runs"
    assert run(["simulate", *many, "--out", str(out), *given]) == 2
    assert "name data.test" in capsys.readouterr().err
    assert not out.exists()


def test_a_study_of_rows_in_memory_has_estimates_in_its_result(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for label in sorted(NOTES) for text in NOTES[label]]
    study = cl.Study(
        model=str(tiny_bert(tmp_path / "base", positions=130)),
        data=cl.partition(rows * 10, sites=2),
        public_records=80,
        held_out_share=0.4,
        task={"kind": "sequence-classification", "labels": sorted(NOTES)},
        training={"expected_batch_size": 20},
        privacy=cl.Privacy(epsilon=8, evaluation_rounds=(1,)),
        rounds=1,
    )
    assert study.recipe.data.held_out_share == 0.4
    result = cl.simulate(study)
    assert result.test == {}
    assert list(result.evaluations.index) == [(1, "accuracy"), (1, "loss")]
    accuracy = result.evaluations.loc[(1, "accuracy")]
    for of in ("held_out", "population"):
        assert 0 <= accuracy[f"{of}_low"] <= accuracy[f"{of}_high"] <= 1
    assert "private evaluation accuracy" in str(result)


def test_a_deployment_needs_no_public_set_either(tmp_path: Path) -> None:
    path, folder = tmp_path / "recipe.toml", tmp_path / "study"
    path.write_text("")
    site_side = ("data.train=", "data.held_out_share=", "data.sites=", "data.public_records=")
    given = [one for one in assignments(folder) if not one.startswith(site_side)]
    members = {name: SimpleNamespace(public_records=80) for name in ("east", "west")}
    recipe = resolved_recipe(path, given, members)  # type: ignore[arg-type]
    assert recipe.data.test is None
    run_folder = RunDirectory.create(tmp_path / "run", recipe)
    key = Ed25519PrivateKey.generate()
    study = DeployedStudy.open(run_folder, members, dict, key, tmp_path / "heads")  # type: ignore[arg-type]
    assert study.coordinator.test == []
    state = ServerState(study.coordinator.start, 1)
    assert study.finish(state, {}, Journal(recipe, run_folder)) == {}
    assert "had no public test set" in (run_folder.adapter / "README.md").read_text("utf-8")
    unscored = [one for one in given if not one.startswith("privacy.evaluation")]
    with pytest.raises(RecipeError, match=r"data\.test: missing.*evaluation_rounds"):
        resolved_recipe(path, unscored, members)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"task\.labels: missing"):
        resolved_recipe(path, [one for one in given if one != LABELS], members)  # type: ignore[arg-type]
