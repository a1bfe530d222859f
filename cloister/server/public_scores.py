"""Scores a study's adapters on public data, and decides whether the study stops early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cloister.adapter.tensors import Adapter
from cloister.data.records import Record
from cloister.models.state import write_adapter
from cloister.privacy.estimated_scores import SelectedRound, evaluated_rounds
from cloister.recipe import Recipe
from cloister.server.class_plot import ClassScores
from cloister.server.early_stopping import (
    LOWER_IS_BETTER,
    estimated,
    is_best,
    selected_round,
    should_stop,
)
from cloister.server.report import SetScores
from cloister.server.run_directory import RunDirectory
from cloister.strategies.aggregation_error import aggregation_error
from cloister.strategies.config import own_strategy
from cloister.strategies.strategy import ServerState, Traits
from cloister.training.evaluation import evaluate
from cloister.training.packed import PackedUnits
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Scorer:
    """Scores the states of the round loop on the public sets.

    Attributes:
        recipe: The study.
        workspace: The study's; its network is overwritten by the scored adapter.
        test: The public test set.
        validation: The public validation set; may be empty.
        run: Holds the scores so far, and the best adapter.
        models: Returns the adapters that a state is scored with; the sites' own where they keep a
            part.
        view: Returns a state of the round loop with what it would deliver as its adapter.
        old_test: The public test set of an earlier study; may be empty.
    """

    recipe: Recipe
    workspace: Workspace
    test: Sequence[Record]
    validation: Sequence[Record]
    run: RunDirectory
    models: Callable[[ServerState], Sequence[Adapter]] = lambda state: [state.adapter]
    view: Callable[[ServerState], ServerState] = lambda state: state
    old_test: Sequence[Record] = ()

    @cached_property
    def _encoded(self) -> Mapping[str, PackedUnits]:
        """The records of each set that is not empty, encoded once for all rounds."""
        sets = {"test": self.test, "validation": self.validation, "old_test": self.old_test}
        return {
            name: PackedUnits((example,) for example in self.workspace.encode(records))
            for name, records in sets.items()
            if records
        }

    def scores(self, state: ServerState) -> SetScores:
        """Scores by set and metric, the mean over the models."""
        return self.scores_and_classes(state)[0]

    def scores_and_classes(self, state: ServerState) -> tuple[SetScores, ClassScores]:
        """Scores by set and metric, and those of each class on the test set.

        Returns:
            Both as means over the models; no classes for a task without them.
        """
        tokens = self.recipe.machine.plain_tokens
        network, task = self.workspace.network, self.workspace.task
        # As in the round, so that what no round has trained yet is computed once for all of them.
        trained = self.workspace.trained_in_round(self.recipe.training, max(state.round, 1))
        self.workspace.train_names(trained)
        rows: dict[str, list[Mapping[str, float]]] = {name: [] for name in self._encoded}
        classes: dict[str, list[Mapping[str, float]]] = {}
        for model in self.models(state):
            write_adapter(network, model)
            for name, units in self._encoded.items():
                examples = [example for (example,) in units]
                found = evaluate(network, task, examples, tokens)
                rows[name].append(found.metrics)
                for label, values in found.report.items() if name == "test" else ():
                    classes.setdefault(label, []).append(values)
        return (
            {name: mean_metrics(scores) for name, scores in rows.items()},
            {label: mean_metrics(scores) for label, scores in classes.items()},
        )

    def when_due(self, state: ServerState) -> SetScores:
        """The scores of what a state of the round loop would deliver, if the recipe scores this
        round; else empty."""
        federation = self.recipe.federation
        due = state.round % federation.evaluate_every == 0 or state.round == federation.num_rounds
        return self.scores(self.view(state)) if due else {}

    def stop_early(self, state: ServerState) -> bool:
        """Keeps the adapter of a round that has the best score so far, and returns whether the
        study stops. Called again for the same state, it does the same."""
        if self.recipe.federation.patience is None:
            return False
        compared, metric = self._compared(), self.workspace.task.primary_metric
        is_new = bool(compared) and compared[-1][0] == state.round
        if is_new and is_best([score for _, score in compared], metric):
            self.run.save_best(self.view(state))
        return self.has_stopped()

    def has_stopped(self) -> bool:
        """Whether the study stops, by the scores so far."""
        patience = self.recipe.federation.patience
        metric = self.workspace.task.primary_metric
        scores = [score for _, score in self._compared()]
        return patience is not None and should_stop(scores, metric, patience)

    def selected(self) -> SelectedRound | None:
        """The round whose adapter is delivered by its score; None: it is the last one's."""
        if self.recipe.federation.patience is None:
            return None
        return selected_round(
            self._compared(),
            self.workspace.task.primary_metric,
            "private_evaluations" if self.recipe.selects_privately else "public_validation",
        )

    def _compared(self) -> list[tuple[int, float]]:
        """The scores by which the study stops, with their rounds, oldest first."""
        metric = self.workspace.task.primary_metric
        if self.recipe.selects_privately:
            return estimated(evaluated_rounds(self.run.evaluations()), metric)
        worst = math.inf if metric in LOWER_IS_BETTER else -math.inf
        return [
            (
                row["round"],
                worst if row["validation"][metric] is None else row["validation"][metric],
            )
            for row in self.run.metrics()
            if "validation" in row
        ]


def mean_metrics(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over models."""
    rows = list(scores)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def error_of(
    recipe: Recipe, traits: Traits, names: tuple[str, ...], workspace: Workspace
) -> Callable[[Adapter, Mapping[str, Adapter], Adapter], float | None] | None:
    """Returns the function for a round's aggregation error, if the method aims at the sites' mean.

    In gradient rounds no site has its own adapter, and if sites keep B no product is shared, so
    there is no error to compute. The function needs every update of a round at once. Returns None
    if there is nothing to compute, or if that would take more memory than the recipe allows.
    """
    shared = (
        recipe.training.mode != "gradient-rounds"
        and recipe.lora.train != "b-kept"
        and recipe.privacy.site_epsilon is None
    )
    mib = len(names) * 4 * workspace.sent.size / 2**20
    if not traits.averages or not shared or mib > recipe.tracking.aggregation_error_mib:
        return None
    frozen = workspace.frozen_factors
    weights = dict(zip(names, own_strategy(recipe.strategy).weights, strict=False))
    return lambda before, updates, after: aggregation_error(before, updates, after, weights, frozen)
