"""A study that stops, and chooses its adapter, by estimates of private evaluations."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.adapter.wire import encode
from cloister.errors import RecipeError
from cloister.privacy.estimated_scores import EvaluatedRound, SelectedBy
from cloister.privacy.noised_ratio import Estimate
from cloister.recipe import Recipe
from cloister.server.early_stopping import estimated, selected_round
from cloister.server.private_evaluation import PrivateEvaluation
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.simulation.study import prepare
from cloister.simulation.twin import plain_twin
from cloister.strategies.strategy import ServerState
from tests.client.test_evaluating import SETTINGS
from tests.support.studies import small_recipe

EACH = ["privacy.evaluation_rounds=[1,2,3,4,5]", "federation.patience=2", "federation.num_rounds=6"]
# The second is the best, and two known ones after it are not better: round 6 is not trained.
ESTIMATES = (0.4, 0.6, None, 0.5, 0.55)


class Stopped(BaseException):
    """Ends the coordinator as a kill would."""


def recipe_of(folder: Path) -> Recipe:
    return small_recipe(folder, *SETTINGS, *EACH)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """Has evaluations give these estimates, and notes the adapter after each round."""
    left, real = list(ESTIMATES), PrivateEvaluation.estimates
    adapters: dict[int, bytes] = {}
    save = RunDirectory.save

    def estimates(self: PrivateEvaluation, sums: Any) -> dict[str, Any]:
        row = real(self, sums)
        row["scores"]["accuracy"]["value"] = left.pop(0)
        return row

    def saved(self: RunDirectory, state: ServerState, *rest: Any) -> None:
        adapters[state.round] = encode(state.adapter)
        save(self, state, *rest)

    monkeypatch.setattr(PrivateEvaluation, "estimates", estimates)
    monkeypatch.setattr(RunDirectory, "save", saved)
    return adapters


def test_the_best_estimate_is_delivered_and_the_promise_stays_that_of_the_whole_list(
    tmp_path: Path, told: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path / "study")
    run = RunDirectory.create(tmp_path / "run", recipe)

    def stopped(self: RunDirectory, state: ServerState) -> None:
        raise Stopped

    with monkeypatch.context() as patch:  # after the first estimate was kept, and not its adapter
        patch.setattr(RunDirectory, "save_best", stopped)
        with pytest.raises(Stopped):
            simulate(recipe, run)
    assert [row["round"] for row in run.evaluations()] == [1]
    result = simulate(recipe, RunDirectory.reopen(tmp_path / "run"))
    assert [row["round"] for row in run.evaluations()] == [1, 2, 3, 4, 5]
    assert result.rounds == 5
    assert (tmp_path / "run" / "checkpoint" / "best.adapter").read_bytes() == told[2]
    assert told[2] != told[5]
    document = json.loads(run.result_file.read_text())
    assert document["selected"]["round"] == 2
    assert document["selected"]["compared"] == 4
    assert "too good on average" in document["selected"]["in_words"]
    card = (run.adapter / "README.md").read_text()
    assert "After round 2 of 5 the sites scored" in card
    assert "**Selected: the adapter after round 2, the best of 4 by accuracy" in card
    plan = prepare(recipe).plans["east"]
    whole, ran = plan.epsilon_after(6), plan.epsilon_after(5)
    assert ran < whole
    for site in result.sites:  # ε of what ran would be no guarantee: noisy releases ended it
        assert site.promise.epsilon == pytest.approx(whole, rel=1e-9)


def test_the_best_known_estimate_is_selected_and_a_smaller_perplexity_is_better() -> None:
    def known(metric: str, *values: float | None) -> list[tuple[int, float]]:
        found = [{metric: Estimate(value, (0.0, 9.0), None)} for value in values]
        rounds = [EvaluatedRound(number, 2, one, {}) for number, one in enumerate(found, 1)]
        return estimated(rounds, metric)

    by: SelectedBy = "private_evaluations"
    assert selected_round(known("accuracy", None, None), "accuracy", by) is None
    chosen = selected_round(known("perplexity", 5.0, None, 3.0, 4.0, 3.0), "perplexity", by)
    assert chosen is not None
    assert (chosen.round, chosen.compared) == (3, 4)
    assert known("loss", None, 0.5) == [(2, 0.5)]


def test_early_stopping_needs_scores_that_are_public_or_charged(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"federation\.patience: .*evaluation_rounds"):
        small_recipe(tmp_path / "study", "federation.patience=2")
    recipe = recipe_of(tmp_path / "study")
    assert recipe.selects_privately
    assert plain_twin(recipe).federation.patience is None
    public = [f"data.validation='{tmp_path / 'study' / 'test.jsonl'}'"]
    both = small_recipe(tmp_path / "study", *SETTINGS, *EACH, *public)
    assert not both.selects_privately
    assert plain_twin(both).federation.patience == 2
