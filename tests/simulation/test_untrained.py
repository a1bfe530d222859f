"""Round 0: what the adapter scores before it is trained, in every table of a study."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from cloister.api.run_result import Result
from cloister.cli.display import Display
from cloister.errors import BadFileError, DataError
from cloister.export.adapter_folder import load_released
from cloister.models.state import write_adapter
from cloister.recipe import Recipe
from cloister.server.run_directory import UNTRAINED, RunDirectory
from cloister.simulation.compare import compare
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.training.evaluation import evaluate
from tests.support.studies import NOTES, small_recipe

Scores = Mapping[str, Mapping[str, float]]


class CrashError(Exception):
    """Ends a run."""


def expected_of(recipe: Recipe) -> float:
    """What the start scores, computed apart from a run."""
    study = prepare(recipe)
    workspace = workspace_of(study)
    write_adapter(workspace.network, workspace.start)
    examples = workspace.encode(study.test)
    return evaluate(workspace.network, workspace.task, examples, 2048).metrics["accuracy"]


def test_a_study_s_tables_begin_with_the_untrained_adapter(
    tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a prompt and a head that starts at the labels' words it is the base's zero-shot score.
    The base ends after its first layer: the released folder says so and loads."""
    recipe = small_recipe(
        tmp_path / "study",
        "lora.head=label-words",
        "model.layers=1",
        'task.prompt="the patient has {text} and"',
        f"task.labels={json.dumps(list(NOTES))}",
        base=llama,
    )
    expected = expected_of(recipe)
    seen: list[Scores] = []
    display = Display(recipe)

    def told(scores: Scores) -> None:
        seen.append(scores)
        display.on_untrained(scores)

    run = RunDirectory.create(tmp_path / "run", recipe)
    finished = simulate(recipe, run, events=Events(on_untrained=told))
    assert seen[0]["test"]["accuracy"] == expected == finished.untrained["accuracy"]
    assert f"0/{recipe.federation.num_rounds}  accuracy {expected:.4f}  untrained" in (
        capsys.readouterr().err
    )
    result = Result(finished)
    rounds = result.rounds
    assert list(rounds.index) == list(range(finished.rounds + 1))
    assert rounds.test_accuracy[0] == expected
    assert rounds.bytes_up[0] == 0 < rounds.bytes_up[1]
    assert result.to_json()["untrained_test"]["accuracy"] == expected
    assert len(run.metrics()) == finished.rounds  # closed rounds alone
    card = (run.adapter / "README.md").read_text()
    assert "| | this adapter | untrained, before round 1 |" in card
    row = f"| accuracy | {finished.test['accuracy']:.4f} | {expected:.4f} |"
    assert row in card
    assert "Use only the base's first 1 layer, " in card
    assert 'between "the patient has " and " and"' in card
    (group,) = compare([run.path]).groups
    assert group.untrained == expected == group.to_json()["untrained"]
    about, again = load_released(run.adapter)
    assert (about.model.layers, about.task.prompt) == (1, recipe.task.prompt)
    scored = evaluate(again.network, again.task, again.encode(prepare(recipe).test), 2048)
    assert scored.metrics["accuracy"] == finished.test["accuracy"]


def test_a_run_that_goes_on_keeps_it_and_one_of_before_has_none(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", "privacy.enabled=false")
    run = RunDirectory.create(tmp_path / "run", recipe)

    def stop(report: object) -> None:
        raise CrashError

    with pytest.raises(CrashError):
        simulate(recipe, run, events=Events(on_round=stop))
    kept = (run.path / UNTRAINED).read_bytes()
    seen: list[Scores] = []
    finished = simulate(recipe, run, events=Events(on_untrained=seen.append))
    assert (run.path / UNTRAINED).read_bytes() == kept
    assert seen == []  # told once, when it was computed
    assert finished.untrained == json.loads(kept)["test"]
    (run.path / UNTRAINED).unlink()  # as an earlier version left it
    (group,) = compare([run.path]).groups
    assert group.untrained is None
    assert list(Result(finished).rounds.index) == [1, 2]
    (run.path / UNTRAINED).write_text("[1]")
    with pytest.raises(BadFileError, match="damaged"):
        compare([run.path])


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to", "path"])
def test_no_public_set_is_the_training_file_by_another_path(
    tmp_path: Path, name: str, link: str
) -> None:
    """It would be scored before round 1 and after each, and no ledger charges a score."""
    private = Path(small_recipe(tmp_path / "study").data.train)
    other = tmp_path / "other.jsonl"
    if link == "path":
        other = private.parent / ".." / "study" / private.name
    else:
        getattr(other, link)(private)
    with pytest.raises(DataError, match=f"data.{name}: .* is the training file"):
        prepare(small_recipe(tmp_path / "study", f"data.{name}={other}"))
