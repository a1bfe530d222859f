"""A simulation from recipe to result: coordinator, sites, and everything a run leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cloister.adapter.tensors import Adapter
from cloister.client.app import make_client_app
from cloister.errors import (
    BudgetError,
    CloisterError,
    QuorumError,
    RoundSpentError,
)
from cloister.export.guessing import guess_warning, guessing
from cloister.ledger.chain import Head
from cloister.ledger.ledger import Ledger
from cloister.models.state import write_adapter
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe import Recipe
from cloister.server.app import make_server_app
from cloister.server.collect import secure_study
from cloister.server.dispatch import Patience
from cloister.server.run_directory import RunDirectory
from cloister.server.scoring import Scorer, error_of
from cloister.server.study import RoundReport, ServerStudy
from cloister.server.tracking import TensorBoard, metrics_row
from cloister.server.unused_run import held
from cloister.simulation.early import check_engine
from cloister.simulation.engines import Engine, run_local, run_ray
from cloister.simulation.finish import write_results
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.personal import site_models
from cloister.simulation.result import Result
from cloister.simulation.study import (
    SimulatedSites,
    SimulatedStudy,
    check_records,
    prepare,
    workspace_of,
)
from cloister.strategies.build import make_strategy
from cloister.strategies.strategy import ServerState
from cloister.tasks.chat import CausalChat
from cloister.training.generation import check_replies
from cloister.training.machine import on_machine
from cloister.training.proof import proven
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Events:
    """Whom a running simulation tells what happens.

    Attributes:
        on_stage: What begins now, in words.
        on_step: A site took a local step (local engine only).
        on_round: A round was closed.
        on_note: What stays to be read: how many privacy units there are.
        on_warning: Something that is seldom meant.
        on_base: How the base's texts become vectors, and why so.
    """

    on_stage: Callable[[str], None] = lambda text: None
    on_step: Callable[[], None] = lambda: None
    on_round: Callable[[RoundReport], None] = lambda report: None
    on_note: Callable[[str], None] = lambda text: None
    on_warning: Callable[[str], None] = lambda text: None
    on_base: Callable[[str], None] = lambda text: None


def simulate(
    recipe: Recipe, run: RunDirectory, engine: Engine = "local", events: Events | None = None
) -> Result:
    """Runs a study, or goes on with it after its last closed round.

    Args:
        recipe: The study.
        run: Its folder, new or of an unfinished run.
        engine: Where sites run.
        events: Whom to tell.

    Returns:
        What the run came to.

    Raises:
        CloisterError: Anything that ends it; closed rounds stay saved.
    """
    with held(run.path):
        return _simulate(recipe, run, engine, events or Events())


def _simulate(recipe: Recipe, run: RunDirectory, engine: Engine, events: Events) -> Result:
    check_engine(recipe, engine)
    coordinator = open_coordinator(recipe, run, events)
    final: list[ServerState] = []
    server_app = make_server_app(lambda context: coordinator.study(), final.append)
    # Ray's workers prepare the study themselves, once each: nothing of it is sent.
    prepared = coordinator.simulated if engine == "local" else None
    sites = SimulatedSites(recipe, run.path / "ledgers", prepared)
    count = len(coordinator.simulated.names)
    events.on_stage("training")
    if engine == "local":
        failures: list[Exception] = []

        def failed(error: Exception) -> None:
            end_on_fault(error)
            failures.append(error)

        try:
            app = make_client_app(
                sites.admitted, Unsigned(), events.on_step, failed, sites.identity
            )
            run_local(server_app, app, count)
        except QuorumError:
            # In one process a site's own error says more than that it did not answer.
            known = [failure for failure in failures if isinstance(failure, CloisterError)]
            if known:
                raise known[0] from None
            raise
    else:
        app = make_client_app(
            sites.admitted, Unsigned(), on_error=end_on_fault, identify=sites.identity
        )
        run_ray(server_app, app, count)
    return coordinator.finish(final[0])


def end_on_fault(error: Exception) -> None:
    """Ends a simulation in which a site's round was charged and went wrong.

    At an institution the round is spent and the study goes on; here it is the same person's
    program that failed, and nothing is gained by a result without it.

    Raises:
        Exception: What went wrong in the round.
    """
    if isinstance(error, RoundSpentError) and error.__cause__ is not None:
        raise error.__cause__


def open_coordinator(
    recipe: Recipe, run: RunDirectory, events: Events | None = None
) -> SimulatedCoordinator:
    """Loads data and model and, with privacy on, proves that records do not touch each other.

    Raises:
        CloisterError: Anything that makes the study impossible, before any training.
    """
    events = events or Events()
    events.on_stage("preparing data and model")
    simulated = prepare(recipe)
    run.state_recipe(simulated.recipe)
    if recipe.privacy.enabled:  # a plain twin has the same units
        counted = simulated.census()
        events.on_note(str(counted))
        for warning in counted.warnings:
            events.on_warning(warning)
    workspace = workspace_of(simulated)
    if workspace.network.pooling is not None:
        events.on_base(f"pooling: {workspace.network.pooling}")
    if isinstance(workspace.task, CausalChat):
        check_replies(workspace.network, workspace.task, workspace.tokenizer, recipe.model.base)
    for warning in check_records(simulated):
        events.on_warning(warning)
    if not run.heads():
        begin_ledgers(simulated, run)
    if recipe.privacy.enabled:
        events.on_stage("checking per-record gradients")
        # What an earlier run in this process left in the network is no start for a proof.
        write_adapter(workspace.network, workspace.start)
        workspace.train_names(frozenset(workspace.start))
        for plan in simulated.plans.values():
            proven(workspace, plan, on_machine(recipe.training, recipe.machine))
    return SimulatedCoordinator(simulated, workspace, run, events)


@dataclass(frozen=True)
class SimulatedCoordinator:
    """The coordinator of a simulation: its study for the round loop, and its end.

    Attributes:
        simulated: Data, plans and the resolved recipe.
        workspace: For scoring and export.
        run: Where everything goes.
        events: Whom to tell.
    """

    simulated: SimulatedStudy
    workspace: Workspace
    run: RunDirectory
    events: Events
    started: float = field(default_factory=time.monotonic)

    @property
    def scorer(self) -> Scorer:
        """Scores adapters on the public sets."""
        simulated = self.simulated
        return Scorer(
            simulated.recipe,
            self.workspace,
            simulated.test,
            simulated.validation,
            self.run,
            self._models,
        )

    def study(self) -> ServerStudy:
        """What the round loop needs, from the last closed round on."""
        recipe, names, workspace = self.simulated.recipe, self.simulated.names, self.workspace
        scorer = self.scorer
        digest = recipe.digest()
        strategy = make_strategy(recipe.strategy, names)
        state = self.run.load(strategy.init(workspace.whole), digest)
        self._heads()
        tensorboard = TensorBoard(self.run) if recipe.tracking.tensorboard else None

        def on_round(report: RoundReport) -> None:
            self.run.append_metrics(metrics_row(report))
            if tensorboard is not None:
                tensorboard.add(report)
            self.events.on_round(report)

        return ServerStudy(
            digest=digest,
            sites=names,
            strategy=strategy,
            state=state,
            num_rounds=state.round if scorer.has_stopped() else recipe.federation.num_rounds,
            min_sites=recipe.federation.min_sites,
            patience=Patience(recipe.federation.round_timeout),
            trained=lambda number: (
                workspace.trained_in_round(recipe.training, number) - workspace.kept
            ),
            max_update_norm=recipe.privacy.max_update_norm if recipe.privacy.enabled else None,
            score=scorer.when_due,
            save=lambda closed: self.run.save(closed, digest, self._heads()),
            voice=Unsigned(),
            stop_early=scorer.stop_early,
            on_round=on_round,
            on_note=self.events.on_stage,
            keys=self._keys(),
            ranks={
                name: frozenset({rank})
                for name, rank in zip(names, recipe.lora.ranks, strict=False)
            },
            dtype=recipe.training.update_dtype,
            error=error_of(recipe, strategy.traits, names, workspace),
            secure=secure_study(recipe, next(iter(self.simulated.plans.values()))),
            central=recipe.privacy.central(len(names), recipe.federation.num_rounds),
        )

    def finish(self, state: ServerState) -> Result:
        """Scores the final adapter and writes everything that stays.

        Raises:
            BudgetError: No round could be afforded.
            LedgerError: A ledger lost charges.
        """
        if state.round == 0:
            raise BudgetError(
                "no round was closed: no site's budget covers one; raise privacy.site_budgets, or "
                "ask for less"
            )
        self._heads()
        self.events.on_stage("writing results")
        best = self.run.load_best(state)
        seconds = time.monotonic() - self.started
        result = write_results(
            self.simulated, self.workspace, self.run, best, self.scorer.scores(best), seconds
        )
        warning = guess_warning(
            result.metric,
            result.test.get(result.metric),
            guessing(self.simulated.recipe.task.kind, result.majority),
            self.workspace.network.pooling,
        )
        if warning is not None:
            self.events.on_warning(warning)
        return result

    def _models(self, state: ServerState) -> list[Adapter]:
        """What a state is scored by: the global adapter; where sites keep a part of it, theirs."""
        if self.simulated.recipe.training.personal:
            return [state.adapter]
        own = site_models(self.simulated, self.workspace, self.run, state.adapter)
        return list(own.values()) or [state.adapter]

    def _keys(self) -> dict[str, str]:
        """The public keys under which the sites' ledgers were begun."""
        names = self.simulated.names
        return {name: Ledger(self.run.ledger(name)).public_key for name in names}

    def _heads(self) -> dict[str, Head]:
        """Where each ledger ends now; each goes on from where it was at the last closed round."""
        ledgers = {name: Ledger(self.run.ledger(name)) for name in self.simulated.names}
        for name, head in self.run.heads().items():
            ledgers[name].check_anchor(head)
        return {name: ledger.head for name, ledger in ledgers.items()}
