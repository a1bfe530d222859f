"""Scores of a study's adapters on public data, and whether they end it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.data.records import Record
from cloister.models.state import write_adapter
from cloister.recipe import Recipe
from cloister.server.early_stopping import LOWER_IS_BETTER, is_best, should_stop
from cloister.server.rounds import SetScores
from cloister.server.run_directory import RunDirectory
from cloister.strategies.strategy import ServerState
from cloister.training.evaluation import evaluate
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Scorer:
    """Scores what the round loop hands it.

    Attributes:
        recipe: The study.
        workspace: Its network is overwritten with what is scored.
        test: Public.
        validation: Public; empty: none.
        run: Holds the scores so far, and the best adapter.
    """

    recipe: Recipe
    workspace: Workspace
    test: Sequence[Record]
    validation: Sequence[Record]
    run: RunDirectory

    def scores(self, state: ServerState) -> SetScores:
        """Scores by set and metric."""
        write_adapter(self.workspace.network, state.adapter)
        tokens = self.recipe.training.physical_batch_tokens
        sets = {"test": self.test, "validation": self.validation}
        network, task = self.workspace.network, self.workspace.task
        return {
            name: evaluate(network, task, self.workspace.encode(records), tokens).metrics
            for name, records in sets.items()
            if records
        }

    def when_due(self, state: ServerState) -> SetScores:
        """Scores in the rounds that the recipe names, else none."""
        federation = self.recipe.federation
        due = state.round % federation.evaluate_every == 0 or state.round == federation.num_rounds
        return self.scores(state) if due else {}

    def stop_early(self, state: ServerState, metrics: SetScores) -> bool:
        """Keeps the best adapter so far; whether the study ends."""
        if self.recipe.federation.patience is None:
            return False
        if is_best(self._validated(), self.workspace.task.primary_metric):
            self.run.save_best(state)
        return self.has_stopped()

    def has_stopped(self) -> bool:
        """Whether the validation scores so far end the study."""
        patience = self.recipe.federation.patience
        metric = self.workspace.task.primary_metric
        return patience is not None and should_stop(self._validated(), metric, patience)

    def _validated(self) -> list[float]:
        metric = self.workspace.task.primary_metric
        worst = math.inf if metric in LOWER_IS_BETTER else -math.inf
        return [
            worst if row["validation"][metric] is None else row["validation"][metric]
            for row in self.run.metrics()
            if "validation" in row
        ]
