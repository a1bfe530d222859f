"""Writes adapter, card and plot at a study's end, in a simulation and over a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloister.adapter.tensors import Adapter
from cloister.evidence.began import Began
from cloister.evidence.site_facts import SiteFacts
from cloister.evidence.spending_series import SpendingSeries
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.export.card import Card, write_card
from cloister.export.card_began import Forgetting
from cloister.export.guessing import guess_warning, guessing
from cloister.export.snippets import loading_of
from cloister.ledger.stated import Stated
from cloister.privacy.estimated_scores import EvaluatedRound, SelectedRound
from cloister.recipe import Recipe
from cloister.server.class_plot import ClassScores, plot_classes
from cloister.server.plots import plot_run
from cloister.server.report import SetScores
from cloister.server.run_directory import RunDirectory
from cloister.training.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The results of a study, from which card and plot are made.

    Attributes:
        recipe: Resolved, with labels.
        workspace: Holds base and task.
        rounds: Rounds closed.
        test: Scores of the released adapter on the public test set.
        majority: Score of one constant answer for every record of the test set.
        sites: By site, the facts of its certificate or ledger, or the reason why there is none.
        promises: The promised ε of each site for which it is known.
        untrained: Scores of the adapter before round 1 on it; empty where it was not scored.
        plain_test: Scores of the same run without privacy; None: there was none.
        label_counts: How many records of the test set have each label.
        lexical: For retrieval: scores of a ranking by shared words on it.
        spending: What each site's ledger spent, by round; empty where the ledgers are not here.
        classes: Scores of each class on the test set; empty for a task without them.
        began: The finished run with whose adapter the study began; None: it began afresh.
        old_test: Scores on an older public test set; None: the recipe names none.
        evaluations: Estimates of the private evaluations, oldest first.
        selected: The round whose adapter is released by its score; None: the last.
    """

    recipe: Recipe
    workspace: Workspace
    rounds: int
    test: Mapping[str, float]
    majority: float | None
    sites: Mapping[str, SiteFacts | str]
    promises: Mapping[str, Stated]
    untrained: Mapping[str, float | None] = field(default_factory=dict)
    plain_test: Mapping[str, float] | None = None
    spending: Sequence[SpendingSeries] = ()
    label_counts: Mapping[str, int] = field(default_factory=dict)
    lexical: Mapping[str, float] = field(default_factory=dict)
    classes: ClassScores = field(default_factory=dict)
    began: Began | None = None
    old_test: Forgetting | None = None
    evaluations: Sequence[EvaluatedRound] = ()
    selected: SelectedRound | None = None

    @property
    def card(self) -> Card:
        """The card of the released adapter."""
        recipe, training, workspace = self.recipe, self.recipe.training, self.workspace
        steps = f"{training.local_steps} local step{'s' * (training.local_steps > 1)} a round"
        return Card(
            name=recipe.study.name,
            base=recipe.model.base,
            base_sha256=workspace.base_sha256,
            kind=recipe.task.kind,
            labels=recipe.task.labels,
            loading=loading_of(recipe.model, workspace),
            parameters=workspace.start.size,
            rounds=self.rounds,
            mode="one gradient a round"
            if training.mode == "gradient-rounds"
            else f"{steps} ({training.optimizer})",
            metric=workspace.task.primary_metric,
            test=self.test,
            untrained=self.untrained,
            lexical=self.lexical,
            plain_test=self.plain_test,
            majority=self.majority,
            label_counts=self.label_counts,
            sites=self.sites,
            recipe_digest=recipe.digest(),
            is_personal=bool(workspace.kept),
            central=recipe.privacy.central(len(self.sites), recipe.federation.num_rounds),
            public=public_words(recipe),
            began=self.began,
            old_test=self.old_test,
            evaluations=self.evaluations,
            selected=self.selected,
        )

    def write(self, run: RunDirectory, adapter: Adapter) -> str | None:
        """Writes adapter, card and plots into a run's folder.

        Args:
            run: The run's.
            adapter: The released adapter, with all its tensors.

        Returns:
            A warning if the adapter scores no better than guessing; else None.
        """
        recipe, workspace = self.recipe, self.workspace
        export(run.adapter, workspace, adapter, released(recipe, workspace))
        write_card(run.adapter, self.card)
        metric, pooling = workspace.task.primary_metric, workspace.network.pooling
        picture = run.path / "metrics.png"
        plot_run(run.scored(), metric, recipe.study.name, self.promises, picture, self.spending)
        plot_classes(self.classes, recipe.study.name, run.path / "classes.png")
        guessed = guessing(recipe.task.kind, self.majority)
        return guess_warning(recipe.task.kind, metric, self.test.get(metric), guessed, pooling)


def public_words(recipe: Recipe) -> str:
    """Describes a study's training on public records in a sentence; empty where there was none."""
    data, training = recipe.data, recipe.training
    if data.public is None:
        return ""
    before, after = recipe.public_steps, recipe.federation.public_replay
    when = [
        *([f"for {before} steps before round 1"] if before else []),
        *([f"for {after} steps after each round"] if after else []),
    ]
    if not when:
        return ""
    return (
        f"The coordinator trained it {' and '.join(when)}, each of about {training.public_batch} "
        f"of {data.public_count or 0:,} public records (SHA-256 `{data.public_sha256}`), of which "
        "none, nor nearly one, is in the test set. No site took part in that."
    )


def forgetting(run: RunDirectory, scores: SetScores) -> Forgetting | None:
    """Returns the scores on an older test set before round 1 and now; None: there is no such set.

    Args:
        run: The run's folder.
        scores: The released adapter's scores, by public set.
    """
    if "old_test" not in scores:
        return None
    return Forgetting(before=run.untrained().get("old_test", {}), after=scores["old_test"])


def released(recipe: Recipe, workspace: Workspace) -> ReleaseFacts:
    """The facts about a study that are stored with its exported adapter."""
    return ReleaseFacts(
        model=dataclasses.replace(recipe.model, sha256=workspace.base_sha256),
        lora=recipe.lora,
        task=recipe.task,
        data=recipe.data,
        seed=recipe.study.seed,
    )
