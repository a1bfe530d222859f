"""A study at its coordinator, in a simulation or over a network: its rounds and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cloister.adapter.tensors import Adapter
from cloister.canonical import json_number
from cloister.data.records import ItemsRecord, LabelsRecord, Record, TextRecord
from cloister.errors import BudgetError
from cloister.ledger.budget import NO_ROUND_FITS
from cloister.ledger.chain import Head
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.server.aggregate_noise import aggregate_noise, unknown_noise
from cloister.server.class_plot import ClassScores
from cloister.server.collect import secure_study
from cloister.server.ports import Observer, Participants
from cloister.server.private_evaluation import private_evaluation
from cloister.server.public_scores import Scorer, error_of
from cloister.server.public_start import replay_on_public, trained_on_public
from cloister.server.report import RoundReport, SetScores
from cloister.server.run_directory import RunDirectory
from cloister.server.start import starting_adapter
from cloister.server.study import ServerStudy
from cloister.server.tracking import TensorBoard, complete_metrics, metrics_row
from cloister.strategies.build import make_delivery, make_strategy
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.proximal import pulled
from cloister.strategies.strategy import ServerState
from cloister.tasks.config import TaskKind
from cloister.tasks.popularity import popular_scores
from cloister.tasks.ranking import SHOWN
from cloister.training.question import question_of
from cloister.training.workspace import Workspace


class RunObserver(Observer):
    """Writes each closed round into the run's folder.

    Args:
        recipe: The study; says whether TensorBoard is written.
        run: Its folder.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        self.run = run
        self._tensorboard = TensorBoard(run) if recipe.tracking.tensorboard else None

    def round_closed(self, report: RoundReport) -> None:
        """Writes its line, and its scalars where the recipe asks for them."""
        self.run.append_metrics(metrics_row(report))
        if self._tensorboard is not None:
            self._tensorboard.add(report)


@dataclass(frozen=True)
class Coordinator:
    """A study at its coordinator: everything except the sites' records, which it never has.

    Attributes:
        recipe: The resolved recipe, with labels.
        plan: The plan of one site; only fields that all plans share are read from it.
        workspace: For scoring and export; its network is overwritten with what is scored.
        test: The public test set.
        validation: The public validation set; empty where the recipe names none.
        run: The folder for all outputs.
        models: Returns the adapters that a state is scored with: its own, or the sites' where they
            keep a part.
        heads: Returns each ledger's head; only a simulation can see them.
        old_test: The public test set of an earlier study; empty where the recipe names none.
    """

    recipe: Recipe
    plan: Plan
    workspace: Workspace
    test: list[Record]
    validation: list[Record]
    run: RunDirectory
    models: Callable[[ServerState], Sequence[Adapter]] = lambda state: [state.adapter]
    heads: Callable[[], Mapping[str, Head]] = dict
    old_test: Sequence[Record] = ()

    @cached_property
    def scorer(self) -> Scorer:
        """Scores adapters on the public sets."""
        return Scorer(
            self.recipe,
            self.workspace,
            self.test,
            self.validation,
            self.run,
            self.models,
            self.delivery.view,
            self.old_test,
        )

    @property
    def delivery(self) -> Delivery:
        """From the adapter that trains to the one that is delivered."""
        recipe = self.recipe
        return make_delivery(recipe.strategy, recipe.federation.num_rounds)

    @cached_property
    def start(self) -> Adapter:
        """The global adapter before round 1.

        Raises:
            BadFileError: The adapter of a finished run with which it begins is damaged.
            DataError: Public records to train on cannot be read, or are not the study's.
        """
        begin = starting_adapter(self.run, self.recipe, self.workspace)
        return trained_on_public(self.recipe, self.workspace, self.run, begin)

    def study(self, participants: Participants, observer: Observer) -> ServerStudy:
        """Returns everything that the round loop needs, from the last closed round on.

        Args:
            participants: The sites, and how they are asked.
            observer: Gets the events of the study.

        Raises:
            CloisterError: The run's folder is damaged, or belongs to another study.
        """
        recipe, run, names, workspace = self.recipe, self.run, participants.names, self.workspace
        digest, federation, scorer = recipe.digest(), recipe.federation, self.scorer
        strategy = make_strategy(recipe.strategy, names)
        delivery, knows_noise = self.delivery, strategy.traits.knows_noise
        start, replayed = self.start, replay_on_public(recipe, workspace)
        question = question_of(workspace, recipe.training, from_seed=recipe.begins_from_seed)
        state = run.load(delivery.begin(strategy.init(start)), digest)
        if complete_metrics(run, state, scorer.when_due):
            observer.note(f"round {state.round} was closed before a crash; its line is written now")
        self.heads()
        self._score_untrained(state, observer)
        return ServerStudy(
            digest=digest,
            participants=participants,
            observer=observer,
            strategy=strategy,
            state=state,
            num_rounds=state.round if scorer.has_stopped() else federation.num_rounds,
            min_sites=federation.min_sites,
            trained=lambda number: (
                workspace.trained_in_round(recipe.training, number) - workspace.kept
            ),
            max_update_norm=recipe.privacy.max_update_norm if recipe.privacy.enabled else None,
            score=scorer.when_due,
            save=lambda closed, report: run.save(closed, digest, self.heads(), metrics_row(report)),
            stop_early=scorer.stop_early,
            error=error_of(recipe, strategy.traits, names, workspace),
            dtype=recipe.training.update_dtype,
            is_compact=recipe.training.adapter_dtype is not None,
            question=question.encode,
            rounded=lambda closed: replace(
                closed, adapter=question.rounded(closed.adapter, closed.round)
            ),
            secure=secure_study(recipe, self.plan),
            central=recipe.privacy.central(len(names), federation.num_rounds),
            delivery=delivery,
            noise=aggregate_noise(recipe, names) if knows_noise else unknown_noise,
            evaluation=private_evaluation(self.plan, workspace, run, self._keep_evaluation),
            settle=lambda closed: replayed(pulled(closed, start, federation.proximal_start or 0.0)),
        )

    def _score_untrained(self, state: ServerState, observer: Observer) -> None:
        """Scores the adapter before round 1, for comparison with what training gives.

        With a head that starts at the labels' words this is the base's zero-shot score, with any
        other that of guessing; of a study that begins with a finished run's adapter it is that
        adapter's. A run that has closed a round keeps its scores.
        """
        if state.round > 0 or not self.test:
            return
        scores = self.scorer.scores(state)
        self.run.save_untrained(
            {
                name: {metric: json_number(value) for metric, value in found.items()}
                for name, found in scores.items()
            }
        )
        observer.untrained(scores)

    def _keep_evaluation(self, row: Mapping[str, Any]) -> None:
        """Keeps an evaluation's line, after the heads of the ledgers that charged it.

        A crash between the two leaves the evaluation due: sites that are asked again send the same
        bytes, and their ledgers stay as they are.
        """
        self.run.save_heads(self.heads())
        self.run.append_evaluation(row)

    def best(self, state: ServerState) -> tuple[ServerState, SetScores, ClassScores]:
        """The state that is released, its scores on the public sets, and those of each class.

        Args:
            state: The state after the last round; with early stopping another one may be the best.

        Raises:
            BudgetError: No round could be afforded.
        """
        if state.round == 0:
            raise BudgetError(NO_ROUND_FITS)
        best = self.delivered(state)
        if self.delivery.averaging is not None:  # a later study may begin with it (--from)
            self.run.save_best(best)
        return best, *self.scorer.scores_and_classes(best)

    def delivered(self, state: ServerState) -> ServerState:
        """The state with what is delivered as its adapter: of the last round, or of the best one
        where a validation set chose it."""
        return self.run.load_best(self.delivery.view(state))


def majority(test: Sequence[Record], kind: TaskKind) -> float | None:
    """Returns the best score of one constant answer for all records.

    None: records have no labels, or are queries, for which rankings are scored.

    Args:
        test: Public records.
        kind: The task.

    Returns:
        For texts with one label, the share of the most frequent label. For texts with several, the
        largest micro F1 of any constant set of labels (it consists of the k most frequent, for
        some k). For persons' items, NDCG of the items that come next most often in this set.
    """
    persons = [record for record in test if isinstance(record, ItemsRecord)]
    if persons:
        return popular_scores(persons)[f"ndcg@{SHOWN}"]
    labels = label_counts(test)
    if not labels or kind == "retrieval":
        return None
    if isinstance(test[0], TextRecord):
        return max(labels.values()) / len(test)
    found, right = [], 0
    for given, (_, count) in enumerate(labels.most_common(), 1):
        right += count
        found.append(2 * right / (given * len(test) + labels.total()))
    return max(found)


def label_counts(test: Sequence[Record]) -> Counter[str]:
    """Counts how many public records have each label; empty if records have no labels."""
    return Counter(label for record in test for label in _labels(record))


def _labels(record: Record) -> tuple[str, ...]:
    if isinstance(record, LabelsRecord):
        return record.labels
    return (record.label,) if isinstance(record, TextRecord) else ()
