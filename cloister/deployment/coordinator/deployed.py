"""A deployed study at the coordinator: public data, the members' keys, and its end.

The coordinator knows only what the sites declared and signed; it has none of their records.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid

from cloister.adapter.tensors import Adapter
from cloister.data.load import Split, load
from cloister.data.public_set import public_records, refuse_contaminated, stated_public_set
from cloister.data.records import Record
from cloister.data.source import OLD_TEST, RECIPE
from cloister.deployment.coordinator.journal import note
from cloister.deployment.coordinator.member_sites import (
    check_members,
    connected_sites,
    kept_certificates,
    plans_of,
)
from cloister.deployment.coordinator.members import Member
from cloister.deployment.coordinator.ports import Journal
from cloister.errors import CloisterError, DataError, RecipeError
from cloister.evidence.began import read_began
from cloister.evidence.site_facts import site_facts
from cloister.export.card import NO_CERTIFICATE
from cloister.models.base import with_base_sha256
from cloister.privacy.estimated_scores import evaluated_rounds
from cloister.protocol.delivery import Claim
from cloister.recipe import Recipe, read_recipe, validated
from cloister.recipe.continued import Former, continued
from cloister.recipe.evaluation_rules import NO_LABELS
from cloister.server.coordinator import Coordinator, label_counts, majority
from cloister.server.delivering import ABSENT, deliver
from cloister.server.ending import Ending, forgetting
from cloister.server.ports import Observer, Participants
from cloister.server.public_center import with_public_center
from cloister.server.report import SetScores
from cloister.server.rounds import run_study
from cloister.server.run_directory import RunDirectory
from cloister.server.study import ServerStudy
from cloister.strategies.strategy import ServerState
from cloister.tasks.build import labels_of
from cloister.tasks.items_hash import with_items_sha256
from cloister.tasks.lexical import lexical_scores
from cloister.training.machine import on_machine
from cloister.training.proof import proven
from cloister.training.workspace import open_workspace

PublicSet = Literal["test", "validation", "old_test"]
PUBLIC: tuple[PublicSet, ...] = get_args(PublicSet)


def resolved_recipe(
    path: Path,
    assignments: list[str],
    members: Mapping[str, Member],
    former: Former | None = None,
) -> Recipe:
    """Returns a study's recipe as sites get it: with labels, the base's hash and the sites.

    Sites accept a base by its hash before they look for it, so the study states it.

    Args:
        path: The recipe's file, which names a public test set or private evaluations.
        assignments: Changes from the command line.
        members: The sites that take part, by name.
        former: The finished run with whose adapter the study begins; None: a fresh one.

    Raises:
        UsageError: No site takes part.
        RecipeError: The recipe does not fit the sites or the finished run, or names neither a
            public test set nor private evaluations.
        DataError: The test set cannot be read.
        ModelFileError: The base cannot be found or loaded, or is not the one that the recipe names.
    """
    check_members(members)
    declared = [members[name].public_records for name in sorted(members)]
    sites = [f"data.sites={len(declared)}", f"data.public_records={declared}"]
    recipe = read_recipe(path, [*assignments, *sites])
    if former is not None:
        recipe = continued(recipe, former)
    if recipe.data.fold is not None:
        raise RecipeError(
            [
                "data.fold: given, but a deployed site never scores held-out records; folds are "
                "for simulations only: leave it out"
            ]
        )
    if recipe.data.held_out_share is not None:
        raise RecipeError(
            [
                "data.held_out_share: given, but each deployed site declares its own share "
                "(site.held_out_share in site.toml); this one is for simulations: leave it out"
            ]
        )
    if not recipe.data.test and recipe.privacy.evaluations is None:
        raise RecipeError(
            [
                "data.test: missing; the coordinator needs a public test set to score each round, "
                "or sites that score held-out records privately (privacy.evaluation_rounds)"
            ]
        )
    has_labels = recipe.task.labels or recipe.data.test or recipe.data.validation
    if not has_labels and recipe.task.records != "messages":
        raise RecipeError([NO_LABELS])
    plugin = recipe.task.plugin
    if plugin is not None and not plugin.distribution:
        raise RecipeError(
            [
                f"task.kind: {recipe.task.kind} is not part of an installed package, so sites "
                "cannot tell which code it is; make a package of it that the sites can install"
            ]
        )
    if recipe.lora.train == "b-kept":
        raise RecipeError(
            [
                "lora.train: b-kept: each site's model stays at the site, so the coordinator has "
                "none to score or deliver; use it in simulations (cloister simulate)"
            ]
        )
    labels = recipe.task.labels or labels_of(
        [record for name in PUBLIC for record in _public(recipe, name)], recipe.task.kind
    )
    items = recipe.task.items and _absolute(recipe.task.items)
    task = dataclasses.replace(recipe.task, labels=tuple(labels), items=items)
    data = dataclasses.replace(
        recipe.data,
        test=recipe.data.test and _absolute(recipe.data.test),
        validation=recipe.data.validation and _absolute(recipe.data.validation),
        public=recipe.data.public and _absolute(recipe.data.public),
        old_test=recipe.data.old_test and _absolute(recipe.data.old_test),
    )
    data = stated_public_set(data, recipe.task.records)
    if data.public is not None:
        scored = [record for name in PUBLIC for record in _public(recipe, name)]
        refuse_contaminated(public_records(data, recipe.task.records), scored)
    model = with_base_sha256(recipe.model)
    task = with_items_sha256(task)
    stated = dataclasses.replace(recipe, model=model, task=task, data=data)
    return with_public_center(validated(stated))


def _absolute(source: str) -> str:
    """Makes a file's path absolute, because the executor runs in another folder."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def _public(recipe: Recipe, name: PublicSet) -> list[Record]:
    """Loads a public set of `[data]`; empty if the recipe names none."""
    source: str | None = getattr(recipe.data, name)
    split: Split = "test" if name == "old_test" else name
    asker = OLD_TEST if name == "old_test" else RECIPE
    return load(source, split, recipe.task.records, recipe.data, asker=asker) if source else []


@dataclass(frozen=True)
class DeployedStudy:
    """A study over a network, ready for the round loop.

    Attributes:
        coordinator: The study at the coordinator.
        members: The sites that take part, by name.
        allowed: Returns the present members.
        key: The coordinator's private key, which signs every question.
        heads: Folder of the last heads of each ledger (`server.heads`).
    """

    coordinator: Coordinator
    members: Mapping[str, Member]
    allowed: Callable[[], Mapping[str, Member]]
    key: Ed25519PrivateKey = field(repr=False)
    heads: Path

    @classmethod
    def open(
        cls,
        run: RunDirectory,
        members: Mapping[str, Member],
        allowed: Callable[[], Mapping[str, Member]],
        key: Ed25519PrivateKey,
        heads: Path,
    ) -> DeployedStudy:
        """Loads base and public data, and checks that per-record gradients are exact.

        Args:
            run: The run's folder.
            members: The sites that take part.
            allowed: Returns the present members.
            key: The coordinator's private key.
            heads: Folder of the sites' last heads.

        Raises:
            CloisterError: The study is impossible; raised before any site is asked.
        """
        recipe = run.recipe()
        test, validation = _public(recipe, "test"), _public(recipe, "validation")
        if recipe.data.test and not test:
            raise DataError(f"{recipe.data.test}: has no records; give a test set with records")
        workspace = open_workspace(
            recipe.model,
            recipe.lora,
            recipe.task,
            recipe.task.labels,
            recipe.study.seed,
            frozen_cache_gib=recipe.machine.frozen_cache_gib,
            device=recipe.machine.device,
            attention=recipe.machine.attention,
            gradient_checkpointing=bool(recipe.machine.gradient_checkpointing),
            adversarial_radius=recipe.training.adversarial_radius,
        )
        if workspace.network.pooling is not None:
            note(run.path, "note", text=f"pooling: {workspace.network.pooling}")
        plans = plans_of(recipe, members)
        if recipe.privacy.enabled:
            for plan in plans.values():
                proven(workspace, plan, on_machine(recipe.training, recipe.machine))
        plan = next(iter(plans.values()))
        coordinator = Coordinator(
            recipe,
            plan,
            workspace,
            test,
            validation,
            run,
            old_test=_public(recipe, "old_test"),
        )
        return cls(coordinator, members, allowed, key, heads)

    @property
    def participants(self) -> Participants:
        """Returns the participating members, with the way in which the coordinator asks them."""
        recipe, run = self.coordinator.recipe, self.coordinator.run
        return connected_sites(recipe, run, self.members, self.allowed, self.key, self.heads)

    @property
    def longest(self) -> Adapter:
        """Names and shapes of the longest update of a site."""
        return self.coordinator.workspace.whole

    def execute(self, grid: Grid) -> None:
        """Runs the remaining rounds, asks the sites for their certificates, and ends the study.

        Raises:
            CloisterError: The study cannot go on, or no site's budget covers a round.
        """
        run, recipe = self.coordinator.run, self.coordinator.recipe
        observer = Journal(recipe, run)
        study = self.coordinator.study(self.participants, observer)
        state = run_study(grid, study)
        found = kept_certificates(grid, study, run, state.round, recipe.most_steps, observer)
        scores = self.finish(state, found, observer)
        self._deliver(grid, study, state, scores, observer)
        note(run.path, "finished", round=state.round, scores={"test": dict(scores.get("test", {}))})

    def finish(
        self,
        state: ServerState,
        certificates: Mapping[str, Mapping[str, Any]],
        observer: Observer,
    ) -> SetScores:
        """Writes adapter, card and plot.

        Args:
            state: The final state.
            certificates: Fields of each site's checked certificate; the card states nothing about
                other sites.
            observer: Gets the warnings.

        Returns:
            The adapter's scores on the public sets.

        Raises:
            BudgetError: No site's budget covers a round.
        """
        best, scores, classes = self.coordinator.best(state)
        known = {site: site_facts(fields) for site, fields in certificates.items()}
        ending = Ending(
            recipe=self.coordinator.recipe,
            workspace=self.coordinator.workspace,
            rounds=state.round,
            test=scores.get("test", {}),
            majority=majority(self.coordinator.test, self.coordinator.recipe.task.kind),
            lexical=lexical_scores(self.coordinator.recipe.task, self.coordinator.test),
            label_counts=label_counts(self.coordinator.test),
            sites={site: known.get(site, NO_CERTIFICATE) for site in sorted(self.members)},
            promises={site: facts.promise for site, facts in known.items()},
            untrained=self.coordinator.run.untrained().get("test", {}),
            classes=classes,
            began=read_began(self.coordinator.run.path),
            old_test=forgetting(self.coordinator.run, scores),
            evaluations=evaluated_rounds(self.coordinator.run.evaluations()),
            selected=self.coordinator.scorer.selected(),
        )
        if ending.selected is not None:
            observer.note(f"selected: {ending.selected}")
        run = self.coordinator.run
        warning = ending.write(run, best.adapter)
        if warning is not None:
            observer.warning(warning)
        return scores

    def _deliver(
        self,
        grid: Grid,
        study: ServerStudy,
        state: ServerState,
        scores: SetScores,
        observer: Observer,
    ) -> None:
        """Offers the adapter to the sites that took part; a failing site does not delay the end."""
        metric = self.coordinator.workspace.task.primary_metric
        score = scores.get("test", {}).get(metric, math.inf)
        claim = Claim(metric, score if math.isfinite(score) else None, state.round)
        run = self.coordinator.run
        sites = frozenset(site for row in run.metrics() for site in row["received"])
        observer.note(
            f"the adapter is offered to {', '.join(sorted(sites))}; a site that is not connected "
            f"has {ABSENT:.0f} s to connect"
        )
        try:
            delivered = deliver(
                grid, study, sites, self.coordinator.delivered(state).adapter, claim
            )
        except CloisterError as error:
            observer.note(f"the adapter was not delivered to any site: {error}")
            return
        if delivered.taken:
            observer.note(f"the adapter was delivered to {', '.join(sorted(delivered.taken))}")
        for site in sorted(sites - delivered.taken):
            why = delivered.refused.get(site, "it did not answer")
            observer.note(
                f"{site}: did not receive the adapter ({why}); send {run.adapter} to it by other "
                "means"
            )
