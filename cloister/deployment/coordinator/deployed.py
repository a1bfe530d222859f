"""A deployed study at the coordinator: public data, the members' keys, and its end.

The coordinator knows of the sites what they declared and signed; of their records it knows nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.data.load import load
from cloister.data.records import Record, TextRecord
from cloister.deployment.coordinator.journal import change_run, note, ready_sites
from cloister.deployment.coordinator.members import Member
from cloister.errors import BudgetError, DataError, RecipeError, UsageError
from cloister.evidence.site_facts import SiteFacts, site_facts
from cloister.export.adapter_folder import Released, export
from cloister.export.card import NO_CERTIFICATE, Card, write_card
from cloister.export.guessing import guess_warning, guessing
from cloister.export.snippets import loading_of
from cloister.models.base import check_base, find_base
from cloister.privacy.plan import Plan, make_plan
from cloister.recipe import Recipe, read_recipe, sent_document, validated
from cloister.server.certifying import collect_certificates
from cloister.server.collect import secure_study
from cloister.server.dispatch import Patience
from cloister.server.heads import Heads
from cloister.server.plots import plot_run
from cloister.server.rounds import run_study
from cloister.server.run_directory import RunDirectory
from cloister.server.scoring import Scorer, error_of
from cloister.server.study import RoundReport, ServerStudy
from cloister.server.tracking import TensorBoard, metrics_row
from cloister.server.voice import Signed
from cloister.strategies.build import make_strategy
from cloister.strategies.strategy import ServerState
from cloister.tasks.build import labels_of
from cloister.training.machine import on_machine
from cloister.training.proof import proven
from cloister.training.workspace import Workspace, open_workspace

# A site whose answer was lost is asked again after so many seconds: its agent is started again in
# less, and has the answer by then.
ASK_AGAIN = 5.0


def resolved_recipe(path: Path, assignments: list[str], members: Mapping[str, Member]) -> Recipe:
    """A study's recipe as the sites get it: with labels, base's hash, and its sites as they are.

    Sites accept a base by its hash before they look for it, so the study states it.

    Args:
        path: The recipe's file; its public test set lies where it says.
        assignments: Changes from the command line.
        members: Who takes part, by name.

    Raises:
        UsageError: Nobody takes part.
        RecipeError: The recipe does not fit the sites, or names no public test set.
        DataError: The test set cannot be read.
        ModelFileError: The base cannot be had, or is not the one that the recipe names.
    """
    if not members:
        raise UsageError(
            "no site was approved yet: cloister member invite SITE, then approve its request"
        )
    declared = [members[name].public_records for name in sorted(members)]
    sites = [f"data.sites={len(declared)}", f"data.public_records={declared}"]
    recipe = read_recipe(path, [*assignments, *sites])
    if not recipe.data.test:
        raise RecipeError(
            ["data.test: missing; a coordinator scores each round on a public test set of its own"]
        )
    plugin = recipe.task.plugin
    if plugin is not None and not plugin.distribution:
        raise RecipeError(
            [
                f"task.kind: {recipe.task.kind} is part of no installed package, so that no site "
                "could tell which code it is; make a package of it that the sites can install"
            ]
        )
    if recipe.lora.train == "b-kept":
        raise RecipeError(
            [
                "lora.train: b-kept: each site's model stays there, so a coordinator has nothing "
                "to score or to ship; compare it in simulations (cloister simulate)"
            ]
        )
    labels = recipe.task.labels or labels_of(
        [*_public(recipe, "test"), *_public(recipe, "validation")], recipe.task.kind
    )
    task = dataclasses.replace(recipe.task, labels=tuple(labels))
    data = dataclasses.replace(
        recipe.data,
        test=_absolute(recipe.data.test),
        validation=recipe.data.validation and _absolute(recipe.data.validation),
    )
    model = recipe.model
    if model.sha256 is None:
        model = dataclasses.replace(model, sha256=check_base(find_base(model.base), None))
    return validated(dataclasses.replace(recipe, model=model, task=task, data=data))


def _absolute(source: str) -> str:
    """A file by its whole path, as the executor looks for it from another folder."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def _since(grid: Grid) -> dict[int, str]:
    """When each node that is online connected."""
    assert isinstance(grid, HttpGrid)
    return {info.node_id: info.last_activated_at for info in grid.get_nodes()}


def _public(recipe: Recipe, name: Literal["test", "validation"]) -> list[Record]:
    """The public set `test` or `validation`, empty where the recipe names none."""
    source = recipe.data.test if name == "test" else recipe.data.validation
    kind = recipe.task.records
    return load(source, name, kind, recipe.data) if source else []


def plans_of(recipe: Recipe, members: Mapping[str, Member]) -> dict[str, Plan]:
    """The plan that the recipe proposes to each site, from what the sites declared.

    Raises:
        RefusedError: No noise meets the target.
    """
    return {
        name: make_plan(
            recipe.privacy,
            public_records=member.public_records,
            expected_batch_size=recipe.training.expected_batch_size,
            local_steps=recipe.training.local_steps,
            num_rounds=recipe.federation.num_rounds,
            sites=recipe.data.sites,
        )
        for name, member in members.items()
    }


@dataclass(frozen=True)
class DeployedStudy:
    """A study over a network, ready for the round loop.

    Attributes:
        recipe: Resolved.
        members: The sites that take part, by name.
        workspace: For scoring and export.
        test: Public.
        validation: Public; empty where the recipe names none.
        run: Its folder.
        allowed: The members as they are now; one that was revoked since is asked no more.
        key: The coordinator's; signs every question.
        heads: Folder of the last heads that came from each ledger (`server.heads`).
    """

    recipe: Recipe
    members: Mapping[str, Member]
    workspace: Workspace
    test: list[Record]
    validation: list[Record]
    run: RunDirectory
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
        """Loads base and public data, and proves the per-record gradients exact.

        Args:
            run: Its folder.
            members: The sites that take part.
            allowed: The members as they are when it is called.
            key: The coordinator's.
            heads: Where the sites' last heads are kept.

        Raises:
            CloisterError: Anything that makes the study impossible, before any site is asked.
        """
        recipe = run.recipe()
        test, validation = _public(recipe, "test"), _public(recipe, "validation")
        if not test:
            raise DataError(f"{recipe.data.test}: the public test set is empty")
        workspace = open_workspace(
            recipe.model,
            recipe.lora,
            recipe.task,
            recipe.task.labels,
            recipe.study.seed,
            frozen_cache_gib=recipe.machine.frozen_cache_gib,
        )
        if workspace.network.pooling is not None:
            note(run.path, "note", text=f"pooling: {workspace.network.pooling}")
        if recipe.privacy.enabled:
            for plan in plans_of(recipe, members).values():
                proven(workspace, plan, on_machine(recipe.training, recipe.machine))
        return cls(recipe, members, workspace, test, validation, run, allowed, key, heads)

    @property
    def scorer(self) -> Scorer:
        """Scores adapters on the public sets."""
        return Scorer(self.recipe, self.workspace, self.test, self.validation, self.run)

    def server_study(self) -> ServerStudy:
        """What the round loop needs, from the last closed round on."""
        recipe, run, names = self.recipe, self.run, tuple(sorted(self.members))
        digest, federation, scorer = recipe.digest(), recipe.federation, self.scorer
        strategy = make_strategy(recipe.strategy, names)
        state = run.load(strategy.init(self.workspace.whole), digest)
        tensorboard = TensorBoard(run) if recipe.tracking.tensorboard else None
        keys = {name: member.ledger_key for name, member in self.members.items()}

        def on_round(report: RoundReport) -> None:
            run.append_metrics(metrics_row(report))
            if tensorboard is not None:
                tensorboard.add(report)
            change_run(run.path, resumed=0)
            for site, why in report.refused.items():
                note(run.path, "refused", round=report.round, site=site, text=why)
            for site in report.retired:
                note(run.path, "retired", round=report.round, site=site)
            scores = {name: dict(found) for name, found in report.metrics.items()}
            note(
                run.path,
                "closed",
                round=report.round,
                scores=scores,
                seconds=round(report.seconds, 2),
                bytes=report.bytes_up,
            )

        return ServerStudy(
            digest=digest,
            sites=names,
            strategy=strategy,
            state=state,
            num_rounds=state.round if scorer.has_stopped() else federation.num_rounds,
            min_sites=federation.min_sites,
            patience=Patience(
                federation.round_timeout,
                federation.absent_timeout,
                ASK_AGAIN,
                silent=federation.absent_timeout,
            ),
            trained=lambda number: self.workspace.trained_in_round(recipe.training, number),
            max_update_norm=recipe.privacy.max_update_norm if recipe.privacy.enabled else None,
            score=scorer.when_due,
            save=lambda closed: run.save(closed, digest),
            voice=Signed(self.key, digest, sent_document(recipe), keys, Heads(self.heads)),
            stop_early=scorer.stop_early,
            on_round=on_round,
            ready=ready_sites(run.path) & set(names),
            on_ready=lambda site: note(run.path, "ready", round=0, site=site),
            on_refused=lambda site, why: note(run.path, "refused", round=0, site=site, text=why),
            on_note=lambda text: note(run.path, "note", text=text),
            on_event=lambda what, number, site: note(run.path, what, round=number, site=site),
            nodes=self._nodes,
            since=_since,
            # Each site says in its site.toml which of the study's ranks it trains.
            ranks=dict.fromkeys(names, frozenset(recipe.lora.ranks)),
            dtype=recipe.training.update_dtype,
            error=error_of(recipe, strategy.traits, names, self.workspace),
            keys=keys,
            secure=secure_study(recipe, next(iter(plans_of(recipe, self.members).values()))),
            central=recipe.privacy.central(len(names), recipe.federation.num_rounds),
        )

    def execute(self, grid: Grid) -> None:
        """Runs every round that is left, asks the sites for their certificates, and ends the study.

        Raises:
            CloisterError: It cannot go on, or no round could be afforded.
        """
        study = self.server_study()
        state = run_study(grid, study)
        training, rounds = self.recipe.training, self.recipe.federation.num_rounds
        most_steps = training.local_steps * rounds
        certificates = (
            collect_certificates(grid, study, state.round, most_steps) if state.round else {}
        )
        for site, (content, _) in certificates.items():
            self.run.save_certificate(site, content)
        for site in sorted(self.members.keys() - certificates.keys()):
            note(self.run.path, "note", text=f"{site}: {NO_CERTIFICATE}; its card says so")
        self.finish(state, {site: fields for site, (_, fields) in certificates.items()})

    def finish(self, state: ServerState, certificates: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes adapter, card and plots.

        Args:
            state: The final state.
            certificates: Fields of each site's, checked; the card says nothing of other sites.

        Raises:
            BudgetError: No round could be afforded.
        """
        if state.round == 0:
            raise BudgetError("no round was closed: no site's budget covers one; ask for less")
        best, recipe = self.run.load_best(state), self.recipe
        about = Released(
            model=dataclasses.replace(recipe.model, sha256=self.workspace.base_sha256),
            lora=recipe.lora,
            task=recipe.task,
            data=recipe.data,
            seed=recipe.study.seed,
        )
        scores = self.scorer.scores(best)
        export(self.run.adapter, self.workspace, best.adapter, about)
        known = {site: site_facts(fields) for site, fields in certificates.items()}
        write_card(self.run.adapter, self._card(scores["test"], state.round, known))
        metric = self.workspace.task.primary_metric
        promises = {site: facts.promise for site, facts in known.items()}
        plot_run(
            self.run.metrics(), metric, recipe.study.name, promises, self.run.path / "metrics.png"
        )
        warning = guess_warning(
            metric,
            scores["test"].get(metric),
            guessing(recipe.task.kind, self._majority()),
            self.workspace.network.pooling,
        )
        if warning is not None:
            note(self.run.path, "note", text=f"warning: {warning}")
        note(self.run.path, "finished", round=state.round, scores={"test": dict(scores["test"])})

    def _nodes(self, grid: Grid) -> dict[int, str]:
        """The members' nodes that are online."""
        assert isinstance(grid, HttpGrid)
        now = self.allowed()
        sites = {now[name].node_key: name for name in self.members if name in now}
        online = {info.node_id: bytes(info.public_key).decode() for info in grid.get_nodes()}
        return {node: sites[key] for node, key in online.items() if key in sites}

    def _majority(self) -> float | None:
        """Share of the test set's most frequent label; None where there are no labels."""
        labels = Counter(r.label for r in self.test if isinstance(r, TextRecord))
        return max(labels.values()) / len(self.test) if labels else None

    def _card(self, test: Mapping[str, float], rounds: int, known: Mapping[str, SiteFacts]) -> Card:
        recipe, training = self.recipe, self.recipe.training
        return Card(
            name=recipe.study.name,
            base=recipe.model.base,
            base_sha256=self.workspace.base_sha256,
            kind=recipe.task.kind,
            labels=recipe.task.labels,
            loading=loading_of(recipe.model, self.workspace),
            parameters=self.workspace.start.size,
            rounds=rounds,
            mode="one gradient a round"
            if training.mode == "gradient-rounds"
            else f"{training.local_steps} local step{'s' * (training.local_steps > 1)} a round "
            f"({training.optimizer})",
            metric=self.workspace.task.primary_metric,
            test=test,
            plain_test=None,
            majority=self._majority(),
            sites={site: known.get(site, NO_CERTIFICATE) for site in sorted(self.members)},
            recipe_digest=recipe.digest(),
            central=recipe.privacy.central(len(self.members), recipe.federation.num_rounds),
        )
