"""Runs a simulation from recipe to result: coordinator, sites, and the files of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from flwr.serverapp import ServerApp

from cloister.adapter.tensors import Adapter
from cloister.errors import CloisterError, QuorumError
from cloister.ledger.chain import Head
from cloister.models.device import device_words
from cloister.models.handed_states import take_piece
from cloister.models.state import write_adapter
from cloister.privacy.estimated_scores import EvaluatedRound
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe import Recipe
from cloister.server.app import make_server_app
from cloister.server.coordinator import Coordinator, RunObserver
from cloister.server.dispatch import Timeouts
from cloister.server.ports import Participants
from cloister.server.report import RoundReport, SetScores
from cloister.server.run_copy import refuse_copy
from cloister.server.run_directory import RunDirectory
from cloister.server.study import ServerStudy
from cloister.server.unused_run import held
from cloister.simulation.early import check_engine, check_workers
from cloister.simulation.engines import Engine, run_apps
from cloister.simulation.finish import write_results
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.open_ledgers import OpenLedgers
from cloister.simulation.personal import site_models
from cloister.simulation.ray_grid import ray_grid
from cloister.simulation.ray_plan import RayPlan, plan_of_ray
from cloister.simulation.ray_start import AnyRay, ray_of
from cloister.simulation.result import RunResult
from cloister.simulation.site_app import site_app
from cloister.simulation.stated_proofs import prove_gradients
from cloister.simulation.study import (
    SimulatedSites,
    SimulatedStudy,
    check_records,
    prepare,
    workspace_of,
)
from cloister.simulation.worker_grid import worker_grid
from cloister.simulation.worker_plan import WorkerPlan, plan_workers, threads_of
from cloister.strategies.strategy import ServerState
from cloister.tasks.chat import CausalChat
from cloister.training.generation import check_replies
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Events:
    """The callbacks of a running simulation.

    Attributes:
        on_stage: A stage begins; gets its name in words.
        on_step: A site took a local step (local engine only).
        on_round: A round was closed.
        on_note: A message that should stay visible, such as the number of privacy units.
        on_warning: A setting is probably a mistake.
        on_untrained: Gets the scores of the adapter before round 1, by public set.
        on_base: Gets device, pooling, centre and proof of the gradients in words.
    """

    on_stage: Callable[[str], None] = lambda text: None
    on_step: Callable[[], None] = lambda: None
    on_round: Callable[[RoundReport], None] = lambda report: None
    on_note: Callable[[str], None] = lambda text: None
    on_warning: Callable[[str], None] = lambda text: None
    on_base: Callable[[str], None] = lambda text: None
    on_untrained: Callable[[SetScores], None] = lambda scores: None


def simulate(
    recipe: Recipe,
    run: RunDirectory,
    engine: Engine = "local",
    events: Events | None = None,
    workers: int | None = None,
    *,
    hands_over: bool = False,
    ray: AnyRay | None = None,
    leaves_ray: bool = False,
) -> RunResult:
    """Runs a study, or continues it after its last closed round.

    Args:
        recipe: The study.
        run: Its folder, new or of an unfinished run.
        engine: The engine that runs the sites.
        events: The callbacks.
        workers: Number of processes that run the sites of the local engine; None: it is decided by
            the work that there is (`worker_plan`).
        hands_over: Whether workers leave this process what they cached of the sites' records, for
            a plain twin (`models.handed_states`).
        ray: The Ray that runs the sites of the engine `ray`; None: that of `RAY_ADDRESS`, else one
            is started for this run.
        leaves_ray: Whether no later study uses `ray`, which then ends while results are written.

    Returns:
        The result of the run.

    Raises:
        RefusedError: The folder is a copy that was fetched from a URL.
        CloisterError: Any other error that ends it; closed rounds stay saved.
    """
    refuse_copy(run.path)
    check_engine(recipe, engine)
    check_workers(recipe, engine, workers)
    made = ray_of(engine, None, recipe.machine.device) if ray is None else nullcontext(ray)
    with held(run.path), made as found:
        leaves_ray = leaves_ray or ray is None
        return _simulate(recipe, run, events or Events(), workers, hands_over, found, leaves_ray)


def _simulate(
    recipe: Recipe,
    run: RunDirectory,
    events: Events,
    workers: int | None,
    hands_over: bool,
    ray: AnyRay | None,
    leaves_ray: bool,
) -> RunResult:
    coordinator = open_coordinator(recipe, run, events, workers, ray)
    final: list[ServerState] = []
    server_app = make_server_app(lambda context: coordinator.study(), final.append)
    ledgers = run.path / "ledgers"
    sites = SimulatedSites(recipe, ledgers, coordinator.simulated, coordinator.opened)
    events.on_stage("training")
    _run_sites(server_app, sites, coordinator, hands_over, ray)
    if ray is not None and leaves_ray:
        ray.leave()
    return coordinator.finish(final[0])


def _run_sites(
    server_app: ServerApp,
    sites: SimulatedSites,
    coordinator: SimulatedCoordinator,
    hands_over: bool,
    ray: AnyRay | None,
) -> None:
    """Runs the apps with sites in this process, its workers or those of a Ray.

    Raises:
        CloisterError: The error of a site, which is a better message than "did not answer"; or any
            other that ends the run.
    """
    count, on_step = len(coordinator.simulated.names), coordinator.events.on_step
    failures: list[Exception] = []
    try:
        if isinstance(coordinator.workers, RayPlan):
            assert ray is not None
            workspace = coordinator.coordinator.workspace
            with ray_grid(
                ray.ready(),
                coordinator.workers,
                sites,
                coordinator.simulated,
                workspace,
                failures.append,
            ) as on_ray:
                run_apps(server_app, on_ray)
        elif coordinator.workers is None:
            app = site_app(sites, on_step, failures.append)
            run_apps(server_app, LocalGrid(app, count))
        else:
            with worker_grid(coordinator.workers, sites, count, on_step, failures.append) as grid:
                run_apps(server_app, grid)
                if hands_over:
                    grid.hand_over(partial(take_piece, coordinator.coordinator.workspace.network))
    except QuorumError:
        known = [failure for failure in failures if isinstance(failure, CloisterError)]
        if known:
            raise known[0] from None
        raise


def open_coordinator(
    recipe: Recipe,
    run: RunDirectory,
    events: Events | None = None,
    workers: int | None = 1,
    ray: AnyRay | None = None,
) -> SimulatedCoordinator:
    """Loads data and model and, with privacy, proves that no record changes another's gradient.

    Args:
        recipe: The study.
        run: Its folder.
        events: The callbacks.
        workers: Number of processes that will run the sites; None: it is decided here.
        ray: The Ray that will run the sites; None: this machine does.

    Raises:
        CloisterError: Any error that makes the study impossible, before any training.
    """
    events = events or Events()
    events.on_stage("preparing data and model")
    simulated = prepare(recipe)
    run.state_recipe(simulated.recipe)
    if recipe.privacy.enabled:  # the plain twin has the same units, counted already
        counted = simulated.census()
        events.on_note(str(counted))
        for warning in counted.warnings:
            events.on_warning(warning)
    workspace = workspace_of(simulated)
    events.on_base(f"device: {device_words(workspace.network.device)}")
    if workspace.network.pooling is not None:
        events.on_base(f"pooling: {workspace.network.pooling}")
    # A private head gets one by default on most bases, which its recipe does not name.
    if (center := simulated.recipe.model.center_in_words) is not None:
        events.on_base(f"centre: {center}")
    if isinstance(workspace.task, CausalChat):
        check_replies(workspace.network, workspace.task, workspace.tokenizer, recipe.model.base)
    for warning in check_records(simulated):
        events.on_warning(warning)
    plan: WorkerPlan | RayPlan | None
    if ray is None:
        plan = plan_workers(simulated, workspace, workers)
    else:
        plan = plan_of_ray(simulated, workspace, ray.ready())
    if plan is not None:
        events.on_base(str(plan))
    if not run.heads():
        begin_ledgers(simulated, run)
    if recipe.privacy.enabled:
        events.on_stage("checking per-record gradients")
        # Reset the network, which an earlier run in this process may have changed, before the
        # proof.
        write_adapter(workspace.network, workspace.start)
        workspace.train_names(frozenset(workspace.start))
        with threads_of(plan):
            for found in prove_gradients(simulated, workspace, run):
                events.on_base(str(found))
    opened = OpenLedgers()
    coordinator = coordinator_of(simulated, workspace, run, opened)
    return SimulatedCoordinator(simulated, coordinator, events, opened, plan)


class SimulationObserver(RunObserver):
    """Writes each closed round into the run's folder, and calls the simulation's callbacks.

    Args:
        recipe: The study.
        run: Its folder.
        events: The callbacks.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory, events: Events) -> None:
        super().__init__(recipe, run)
        self._events = events

    def note(self, text: str) -> None:
        """Passes on a note about something unusual."""
        self._events.on_stage(text)

    def warning(self, text: str) -> None:
        """Passes a warning on to the display."""
        self._events.on_warning(text)

    def untrained(self, scores: SetScores) -> None:
        """Passes on the scores of round 0."""
        self._events.on_untrained(scores)

    def evaluated(self, found: EvaluatedRound) -> None:
        """Passes on the estimates of a private evaluation, in words."""
        self._events.on_note(f"private evaluation: {found}")

    def round_closed(self, report: RoundReport) -> None:
        """Writes the round's figures, and passes them on."""
        super().round_closed(report)
        self._events.on_round(report)


@dataclass(frozen=True)
class SimulatedCoordinator:
    """The coordinator of a simulation, which can read the sites' ledgers too.

    Attributes:
        simulated: Data, plans and the resolved recipe.
        coordinator: The study at the coordinator.
        events: The callbacks.
        opened: Opens the sites' ledgers.
        workers: The processes that run the sites; None: this one does.
    """

    simulated: SimulatedStudy
    coordinator: Coordinator
    events: Events
    opened: OpenLedgers
    workers: WorkerPlan | RayPlan | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def observer(self) -> SimulationObserver:
        """Returns the observer that writes and reports events."""
        return SimulationObserver(self.coordinator.recipe, self.coordinator.run, self.events)

    def study(self) -> ServerStudy:
        """Returns what the round loop needs, from the last closed round on."""
        recipe, names, run = self.coordinator.recipe, self.simulated.names, self.coordinator.run
        participants = Participants(
            names=names,
            patience=Timeouts(recipe.federation.round_timeout),
            voice=Unsigned(),
            keys={name: self.opened(run.ledger(name)).public_key for name in names},
            ranks={
                name: frozenset({rank})
                for name, rank in zip(names, recipe.lora.ranks, strict=False)
            },
        )
        return self.coordinator.study(participants, self.observer)

    def finish(self, state: ServerState) -> RunResult:
        """Scores the final adapter and writes all results.

        Raises:
            BudgetError: The budget did not cover one round.
            LedgerError: A ledger lost charges.
        """
        self.coordinator.heads()
        self.events.on_stage("writing results")
        best, scores, classes = self.coordinator.best(state)
        seconds = time.monotonic() - self.started
        result, warning = write_results(
            self.simulated, self.coordinator, best, scores, seconds, classes
        )
        if warning is not None:
            self.events.on_warning(warning)
        return result


def coordinator_of(
    simulated: SimulatedStudy,
    workspace: Workspace,
    run: RunDirectory,
    opened: OpenLedgers,
) -> Coordinator:
    """Makes the coordinator of a simulated study.

    Args:
        simulated: Data, plans and the resolved recipe.
        workspace: The base and network.
        run: The run's folder.
        opened: Opens the sites' ledgers.
    """

    def models(state: ServerState) -> list[Adapter]:
        """Returns the adapters by which a state is scored: the global one, or the sites' own."""
        if simulated.recipe.training.personal:
            return [state.adapter]
        own = site_models(simulated, workspace, run, state.adapter)
        return list(own.values()) or [state.adapter]

    def heads() -> dict[str, Head]:
        """Returns each ledger's head now; each must continue that of the last closed round."""
        ledgers = {name: opened(run.ledger(name)) for name in simulated.names}
        for name, head in run.heads().items():
            ledgers[name].check_anchor(head)
        return {name: ledger.head for name, ledger in ledgers.items()}

    return Coordinator(
        simulated.recipe,
        next(iter(simulated.plans.values())),
        workspace,
        simulated.test,
        simulated.validation,
        run,
        models,
        heads,
        simulated.old_test,
    )
