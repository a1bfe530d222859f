"""`cloister.simulate` and `cloister.resume`: run a whole federated study on this machine."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cloister.api.definition import Study
from cloister.bounds import shortened
from cloister.errors import UsageError
from cloister.names import is_url
from cloister.quiet import keep_quiet
from cloister.simulation.ray_nodes import check_ray_address
from cloister.simulation.ray_start import ray_of

if TYPE_CHECKING:
    from cloister.api.run_result import Result
    from cloister.recipe import Recipe
    from cloister.server.report import RoundReport
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.ray_start import AnyRay
    from cloister.simulation.run import Events

# Is called with each closed round, in the form of metrics.jsonl.
Progress = Callable[[Mapping[str, Any]], object]
EngineName = Literal["local", "ray"]


def simulate(
    study: Study,
    *,
    out: str | PathLike[str] | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    twin: bool = False,
    from_run: str | PathLike[str] | Result | None = None,
    progress: Progress | Events | None = None,
) -> Result:
    """Runs a study: each site's training, noise and accounting are those of a real institution.

    >>> import cloister as cl
    >>> study = cl.Study(rounds=40, privacy=cl.Privacy(epsilon=3))
    >>> result = cl.simulate(study)  # doctest: +SKIP
    >>> print(result.test["accuracy"], result.epsilon)  # doctest: +SKIP

    (Skipped, because forty rounds of the quickstart take minutes; `tests/api/test_sketch.py` runs
    the same on a tiny base.)

    Args:
        study: The study.
        out: A new folder for the run, which keeps everything, and data in memory as files that only
            their owner can read (`data/`), so that an interrupted run can be resumed. Absent: a
            private temporary folder, removed with the result.
        engine: `local`: on this machine's cores; `ray`: on the nodes of a Ray.
        workers: Number of processes among which the sites of the local engine are divided; 1: all
            in this one. Absent: on Linux without a GPU, as many as torch has threads
            (`OMP_NUM_THREADS`) if there is work for them.
        ray_address: HOST:PORT of a Ray that runs already and has a node on this machine, for the
            engine `ray`. Absent: that of `RAY_ADDRESS` in the environment, else one is started.
        twin: Whether to run the same study also without privacy.
        from_run: A finished run, as its folder or its result: the study begins with its adapter,
            and its sites' ledgers are charged further, so that ε covers both. Absent: a fresh
            adapter.
        progress: Is called with each closed round; absent: nothing is called.

    Raises:
        CloisterError: Any error that ends the study; closed rounds stay in `out`.
    """
    if not isinstance(study, Study):
        raise UsageError(
            f"study: {type(study).__name__} given; a cloister.Study is needed, which "
            "cloister.Study.from_toml(path) reads from a recipe"
        )
    _check_options(engine, progress, ray_address)
    _check_folder("out", out)
    if from_run is not None and twin:
        raise UsageError("twin: given with from_run, which begins one run; leave one of them out")
    keep_quiet()
    from cloister.api.run_result import Result
    from cloister.recipe.continued import continued
    from cloister.server.former_run import read_former
    from cloister.server.run_copy import refuse_copy
    from cloister.server.run_directory import RECORDS, RunDirectory
    from cloister.simulation.budget_check import budget_problem
    from cloister.simulation.ledgers import go_on

    before = from_run.folder if isinstance(from_run, Result) else from_run
    if before is not None:
        refuse_copy(Path(before))
    former = None if before is None else read_former(Path(before))

    private: Path | None = None
    if out is None:
        private = Path(tempfile.mkdtemp(prefix="cloister-"))
        folder = private / "run"
    else:
        folder = Path(out).absolute()
    try:
        recipe = study.named(folder / RECORDS)
        if former is not None:
            recipe = continued(recipe, former.former)
        short = budget_problem(recipe)
        if short is not None:  # before a ledger is begun with a budget that it keeps
            raise short
        run = RunDirectory.create(folder, recipe)
        if former is not None:
            go_on(run, former)
        study.written(folder / RECORDS)
        result = run_study(recipe, run, engine, twin, progress, workers, ray_address)
    except BaseException:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
        raise
    if private is not None:
        weakref.finalize(result, shutil.rmtree, private, ignore_errors=True)
    return result


def resume(
    folder: str | PathLike[str],
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    twin: bool = False,
    progress: Progress | Events | None = None,
) -> Result:
    """Continues an unfinished run after its last closed round; see `simulate`.

    Args:
        folder: The run's folder, with its `recipe.toml`.
        engine: `local` or `ray`.
        workers: As in `simulate`.
        ray_address: As in `simulate`.
        twin: Whether the same study also runs without privacy.
        progress: Is called with each closed round; absent: it is not called.

    Raises:
        UsageError: The folder is not that of a run.
        CloisterError: Any error that ends the study.
    """
    _check_options(engine, progress, ray_address)
    _check_folder("folder", folder)
    keep_quiet()
    from cloister.server.run_directory import RunDirectory

    run = RunDirectory.reopen(Path(folder))
    return run_study(run.recipe(), run, engine, twin, progress, workers, ray_address)


def run_study(
    recipe: Recipe,
    run: RunDirectory,
    engine: EngineName,
    twin: bool,
    progress: Progress | Events | None,
    workers: int | None = None,
    ray_address: str | None = None,
) -> Result:
    """Runs a study in a folder, or continues it; see `simulate`.

    Args:
        recipe: The study; its data are files, hub ids or a generator.
        run: The folder, new or of an unfinished run.
        engine: `local` or `ray`.
        twin: Whether the same study also runs without privacy.
        progress: Is called with each closed round.
        workers: As in `simulate`.
        ray_address: As in `simulate`.

    Raises:
        CloisterError: Any error that ends the study; closed rounds stay in the folder.
    """
    from cloister.simulation.early import check_engine, check_workers

    check_engine(recipe, engine)
    check_workers(recipe, engine, workers)
    # Before torch is loaded, because Ray and its processes start meanwhile.
    with ray_of(engine, ray_address, recipe.machine.device) as ray:
        return _run_study(recipe, run, engine, twin, progress, workers, ray)


def _run_study(
    recipe: Recipe,
    run: RunDirectory,
    engine: EngineName,
    twin: bool,
    progress: Progress | Events | None,
    workers: int | None,
    ray: AnyRay | None,
) -> Result:
    from cloister.api.run_result import Result
    from cloister.recipe import warnings
    from cloister.server.tracking import metrics_row
    from cloister.simulation import run as simulation
    from cloister.simulation.twin import simulate_with_twin

    noted = list(warnings(recipe))
    if isinstance(progress, simulation.Events):
        events = progress
    elif progress is None:
        events = simulation.Events(on_warning=noted.append)
    else:
        told = progress

        def on_round(report: RoundReport) -> None:
            told(metrics_row(report))

        events = simulation.Events(on_round=on_round, on_warning=noted.append)
    runner = simulate_with_twin if twin and recipe.privacy.enabled else simulation.simulate
    found = runner(recipe, run, engine, events, workers, ray=ray, leaves_ray=True)
    return Result(found, tuple(noted))


def _check_folder(name: str, given: str | PathLike[str] | None) -> None:
    """Refuses a URL, which would be taken for a relative path.

    Raises:
        UsageError: It is a URL.
    """
    if isinstance(given, str) and is_url(given):
        raise UsageError(
            f"{name}: {shortened(given)} is a URL; a folder of this machine is needed. A run is "
            "copied to a URL while it goes on by the command: cloister simulate RECIPE --out URL"
        )


def _check_options(engine: object, progress: object, ray_address: object) -> None:
    """Refuses at once options that would only fail after the first round.

    Raises:
        UsageError: The engine is unknown, has no Ray at an address, or `progress` cannot be called.
    """
    known = get_args(EngineName)
    if engine not in known:
        raise UsageError(f"engine: {shortened(engine)} given; {' or '.join(known)} is needed")
    check_ray_address("ray_address", ray_address, str(engine))
    if progress is None or callable(progress) or hasattr(progress, "on_round"):
        return
    raise UsageError(
        f"progress: {shortened(progress)} given; a function is needed, which gets each closed "
        "round's row"
    )
