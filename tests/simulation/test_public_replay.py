"""Replay of public records after each round: what it keeps, what it costs, and what resumes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.data.public_set import public_records
from cloister.errors import RecipeError
from cloister.models.state import write_adapter
from cloister.recipe import Recipe, parse_document, parse_recipe
from cloister.server.public_start import replay_on_public
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.server.start import begin_with
from cloister.simulation.ledgers import go_on
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from cloister.training.evaluation import evaluate
from tests.simulation.test_public_start import write_public
from tests.support.studies import small_recipe

# Private rounds at this rate change less than a float32 shows.
STILL = "training.learning_rate=1e-12"


def recipe_of(folder: Path, bert: Path, *changes: str) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    public = write_public(folder / "public.jsonl")
    given = (
        f"data.public='{public}'",
        "training.public_learning_rate=0.5",
        "training.public_batch_size=8",
        "federation.num_rounds=2",
        "federation.public_replay=6",
        "privacy.enabled=false",
    )
    return small_recipe(folder, *given, *changes, base=bert)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """A finished run without public records."""
    folder = tmp_path_factory.mktemp("former")
    recipe = small_recipe(
        folder / "data", "federation.num_rounds=1", "privacy.enabled=false", STILL, base=bert
    )
    simulate(recipe, RunDirectory.create(folder / "run", recipe))
    return folder / "run"


def begun(recipe: Recipe, former: Path, out: Path) -> tuple[Recipe, RunDirectory]:
    study, found = begin_with(recipe, former)
    run = RunDirectory.create(out, study)
    go_on(run, found)
    return study, run


def test_a_study_from_a_run_learns_public_records_after_round_1_alone(
    tmp_path: Path, bert: Path, former: Path
) -> None:
    """Round 1 begins with the accepted adapter; then public records teach, the sites nothing."""
    study, run = begun(recipe_of(tmp_path / "data", bert, STILL), former, tmp_path / "run")
    assert not (run.path / "start" / "public").exists()
    result = simulate(study, run)
    sent = parse_document(prepare(study).recipe.document())
    assert sent.federation.public_replay == 6
    assert sent.training.public_steps is None
    assert result.untrained["accuracy"] is not None
    records = public_records(study.data, study.task.records)
    place, state = workspace_of(prepare(study)), run.last()
    examples = place.encode(records)

    def loss(adapter: Adapter) -> float:
        write_adapter(place.network, adapter)
        return evaluate(place.network, place.task, examples, 1024).metrics["loss"]

    assert loss(state.adapter) < loss(place.whole) - 0.05
    card = (run.adapter / "README.md").read_text()
    assert "The coordinator trained it for 6 steps after each round, each of about" in card
    assert "before round 1, each" not in card


def test_each_round_takes_steps_of_its_own_and_a_resumed_run_the_same(
    tmp_path: Path, bert: Path
) -> None:
    recipe = recipe_of(tmp_path / "data", bert)
    whole = RunDirectory.create(tmp_path / "whole", recipe)
    simulate(recipe, whole)

    def stop(report: RoundReport) -> None:
        raise KeyboardInterrupt

    broken = RunDirectory.create(tmp_path / "broken", recipe)
    with pytest.raises(KeyboardInterrupt):
        simulate(recipe, broken, events=Events(on_round=stop))
    simulate(broken.recipe(), RunDirectory.reopen(broken.path))
    same = "checkpoint/round-0002.adapter"
    assert (whole.path / same).read_bytes() == (broken.path / same).read_bytes()
    stated = prepare(recipe).recipe
    place = workspace_of(prepare(recipe))
    replayed = replay_on_public(stated, place)
    one, two = (replayed(ServerState(place.whole, number)) for number in (1, 2))
    again = replayed(ServerState(place.whole, 1))
    assert (one.adapter - again.adapter).norm() == 0.0
    assert (one.adapter - two.adapter).norm() > 0.0
    assert one.round == 1


def test_a_probe_round_s_replay_changes_the_head_alone(tmp_path: Path, bert: Path) -> None:
    recipe = recipe_of(tmp_path / "data", bert, "training.probe_rounds=1")
    stated = prepare(recipe).recipe
    place = workspace_of(prepare(recipe))
    before = place.whole
    after = replay_on_public(stated, place)(ServerState(before, 1)).adapter
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_replay_is_in_the_digest_and_needs_public_records(tmp_path: Path, bert: Path) -> None:
    recipe = recipe_of(tmp_path / "data", bert)
    other = replace(recipe, federation=replace(recipe.federation, public_replay=7))
    assert prepare(recipe).recipe.digest() != prepare(other).recipe.digest()
    assert "public_replay" not in json.loads(Recipe().document()).get("federation", {})
    with pytest.raises(RecipeError, match=r"federation\.public_replay: given without data\.public"):
        parse_recipe("", ["federation.public_replay=2"])
    with pytest.raises(RecipeError, match=r"federation\.public_replay: flexlora writes"):
        parse_recipe(
            "",
            [
                "strategy.name=flexlora",
                "lora.train=both",
                "training.mode=local-steps",
                "data.public=a.jsonl",
                "federation.public_replay=2",
            ],
        )
