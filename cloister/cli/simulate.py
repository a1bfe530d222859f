"""`cloister simulate`: runs a whole federated study on this machine."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.sweep import sweep as run_sweep
from cloister.data.config import FEWEST_FOLDS, MOST_FOLDS
from cloister.errors import BadFileError, CloisterError, RefusedError, UsageError

if TYPE_CHECKING:
    from cloister.cli.display import Display
    from cloister.recipe import Recipe
    from cloister.server.former_run import FormerRun

EXAMPLE = """
Runs a federated study on this machine: every site's training, noise and accounting as they would
run at an institution. Without a recipe the quickstart runs: four synthetic hospitals at ε = 8, and
the same study without privacy. There --set of privacy.epsilon, privacy.delta, study, machine and
tracking changes the quickstart; any other field describes a study of its own, with the defaults of
a recipe.

Examples:

    cloister simulate

    cloister simulate simulations/bank_intents.toml --set data.train=train.jsonl
    --set data.test=test.jsonl --out runs/bank

    cloister simulate simulations/bank_intents.toml --dry-run

    cloister simulate study.toml --workers 4

    cloister simulate study.toml --engine ray --ray-address 10.0.0.5:6379

    cloister simulate --resume --out runs/bank

    cloister simulate next.toml --from runs/bank --set data.old_test=test.jsonl --out runs/next

    cloister simulate study.toml --folds 5 --out runs/folds

    cloister simulate study.toml --seeds 3 --sweep privacy.epsilon=1,3,8 --out runs/sweep
"""


RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --engine ray: a Ray that runs already and has a node on this machine. Absent: "
        "that of RAY_ADDRESS in the environment, else one is started here.",
    ),
]


class EngineName(StrEnum):
    """The engine in which simulated sites run."""

    LOCAL = "local"
    RAY = "ray"


def simulate(
    recipe: Annotated[
        Path | None, typer.Argument(help="The study's recipe (TOML). Absent: the quickstart.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="This machine's cores, or the nodes of a Ray.")
    ] = EngineName.LOCAL,
    ray_address: RayAddress = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Number of processes among which the sites are divided; 1: all in this one. "
            "Absent: on Linux without a GPU, as many as torch has threads (OMP_NUM_THREADS), if "
            "there is work for them.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. Absent: runs/NAME-TIME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in --out.")
    ] = False,
    former: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the adapter of a finished run, and charge the sites' ledgers of that "
            "run further. Base, task, labels, adapters and seed must be the same.",
        ),
    ] = None,
    twin: Annotated[
        bool | None,
        typer.Option(
            "--twin/--no-twin",
            help="Also run the same study without privacy, untuned. Absent: only without a recipe.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Repeat with this number of seeds, into one folder. Seeds change only the "
            "adapter's start and the partition; private noise and sampling always come from the "
            "operating system.",
        ),
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="SECTION.KEY=A,B,…",
            help="Run each value, into one folder; repeated: each combination.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=FEWEST_FOLDS,
            max=MOST_FOLDS,
            help="Cross-validation: this number of runs in one folder, each with another part of "
            "data.train held out as its test set. Their ε together is printed.",
        ),
    ] = None,
    is_dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check plan, base, data and gradients; stop before the first round. With "
            "--engine ray also whether its address answers; no Ray is started or joined.",
        ),
    ] = False,
    is_verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show stages' times and rounds' norms.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.")
    ] = False,
) -> None:
    """Run a federated study on this machine."""
    from cloister.recipe import read_recipe, warnings
    from cloister.simulation.ray_nodes import check_ray_address, checked_ray

    check_ray_address("--ray-address", ray_address, engine.value)

    if folds is not None:
        from cloister.simulation.folds import check_folds

        check_folds(folds, seeds, sweeps or [])
    is_several = bool(sweeps) or seeds is not None or folds is not None
    if former is not None and (resume or twin or is_several):
        raise UsageError(
            "--from: given with --resume, --twin, --sweep, --seeds or --folds; it begins one run "
            "with privacy or without: leave the others out (a run that began so is resumed with "
            "--resume --out alone)"
        )
    if is_several:
        single = "resume" if resume else "dry-run" if is_dry else "twin" if twin else None
        _refuse_for_several(workers, single)
        run_sweep(
            recipe,
            assignments or [],
            sweeps or [],
            seeds or 1,
            engine=engine.value,
            ray_address=ray_address,
            out=out,
            folds=folds,
            is_verbose=is_verbose,
            as_json=as_json,
        )
        return
    if resume:
        study = _resumed(out, is_dry=is_dry, is_other=recipe is not None or bool(assignments))
    else:
        study = read_recipe(recipe, assignments or [])
    began = None
    if former is not None:
        from cloister.server.start import begin_with

        study, began = begin_with(study, former)
    with_twin = (recipe is None and not resume and began is None) if twin is None else twin
    with_twin = with_twin and study.privacy.enabled

    from cloister.cli.display import Display
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.early import check_workers, refuse_early

    check_workers(study, engine.value, workers)
    if is_verbose:
        logging.getLogger("cloister").setLevel(logging.INFO)
    if not resume:  # a resumed run also explains what to do about its recipe
        refuse_early(study, engine.value)
    if is_dry:
        display = Display(study, is_verbose=is_verbose)
        for note in warnings(study):
            display.warn(note)
        if engine is EngineName.RAY:
            display.note(checked_ray(ray_address))
        _dry_run(study, display, as_json, began, workers if engine is EngineName.LOCAL else 1)
        return
    folder = out or Path("runs") / f"{study.study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = RunDirectory.reopen(folder) if resume else RunDirectory.create(folder, study)
    if began is not None:
        from cloister.simulation.ledgers import go_on

        go_on(run, began)
        for line in went_on(study, began):
            typer.echo(line, err=True)
    display = Display(study, closed_rounds=len(run.metrics()), is_verbose=is_verbose)
    for note in warnings(study):
        display.warn(note)

    from cloister.api.simulating import (
        run_study,
    )  # loads torch; all refusals above are faster without it
    from cloister.simulation.run import Events

    events = Events(
        display.on_stage,
        display.on_step,
        display.on_round,
        display.note,
        display.warn,
        on_base=display.note,
        on_untrained=display.on_untrained,
    )
    try:
        with display:
            result = run_study(study, run, engine.value, with_twin, events, workers, ray_address)
    except (UsageError, BadFileError, RefusedError) as error:
        if resume:
            error.add_note(_after_resume(folder, display.closed_rounds))
        raise
    except KeyboardInterrupt:
        raise CloisterError(
            f"interrupted in round {display.closed_rounds + 1}; {display.closed_rounds} rounds "
            f"are saved in {run.path}; continue with: cloister simulate --resume --out {folder}"
            f"{' --twin' if with_twin else ''}"
        ) from None
    display.summary(result.finished)
    if as_json:
        typer.echo(json.dumps(result.to_json()))


def _refuse_for_several(workers: int | None, single: str | None) -> None:
    """Refuses options of one run beside those of several.

    Args:
        workers: What --workers says.
        single: The name of an option that is for one run; None: none is given.

    Raises:
        UsageError: One is given.
    """
    if workers is not None:
        raise UsageError(
            "--workers: given with --sweep, --seeds or --folds, each of whose runs decides by "
            "itself; leave it out (OMP_NUM_THREADS bounds all of them)"
        )
    if single is not None:
        raise UsageError(
            f"--{single} given with --sweep, --seeds or --folds; it is for one run. The same "
            "command again continues an unfinished sweep; the twin of a sweep is --sweep "
            "privacy.enabled=true,false, whose runs without privacy have rows of their own in the "
            "comparison (--twin would add one to each run, equal for every ε)"
        )


def _resumed(out: Path | None, *, is_dry: bool, is_other: bool) -> Recipe:
    """Returns the recipe of the run that is resumed.

    Args:
        out: The run's folder.
        is_dry: Whether --dry-run is given.
        is_other: Whether a recipe or changes to one are given.

    Raises:
        UsageError: Other options are given, or the folder is not that of a run.
        CloisterError: The run's recipe is damaged.
    """
    from cloister.recipe import read_run_recipe

    if is_dry:
        raise UsageError(
            "--dry-run: given with --resume; it checks a study before it begins: leave --resume out"
        )
    if out is None or is_other:
        raise UsageError(
            "--resume: give the run's folder as --out, and nothing else; its own recipe.toml is "
            "used"
        )
    if not (out / "recipe.toml").is_file():
        raise UsageError(f"--resume: {out} is not a run's folder: it has no recipe.toml")
    return read_run_recipe(out / "recipe.toml")


def went_on(study: Recipe, began: FormerRun) -> list[str]:
    """Returns lines about the finished run with which a study begins."""
    lines = [f"begins with the adapter of {began.former.run}, SHA-256 {began.former.adapter[:16]}…"]
    old = began.former.recipe.data.test
    if study.data.old_test is None and old not in (None, study.data.test):
        lines.append(
            f"what is forgotten is not measured: give the earlier study's public test set as "
            f"--set data.old_test={old}"
        )
    return lines


def _dry_run(
    study: Recipe,
    display: Display,
    as_json: bool,
    began: FormerRun | None,
    workers: int | None,
) -> None:
    """Prepares a study and prints its promises and sizes, without a round."""
    from cloister.simulation.dry_run import dry_run
    from cloister.simulation.run import Events

    checked = dry_run(
        study,
        Events(
            on_stage=display.on_stage,
            on_note=display.note,
            on_warning=display.warn,
            on_base=display.note,
            on_untrained=display.on_untrained,
        ),
        began,
        workers,
    )
    if as_json:
        promises = {site: promise.to_json() for site, promise in checked.promises.items()}
        typer.echo(json.dumps({**asdict(checked), "promises": promises}))
        return
    for site, promise in checked.promises.items():
        typer.echo(f"{site}: {promise}")
    typer.echo(
        f"{checked.parameters:,} parameters are trained and sent; {checked.test_records:,} test "
        f"records; {len(checked.labels)} labels; base {checked.base_sha256[:16]}…"
    )
    typer.echo("The study can run. Nothing was trained, charged or kept.")


def _after_resume(folder: Path, closed_rounds: int) -> str:
    """Returns the remedy for a run that cannot be resumed with its recipe."""
    recipe = f"a resumed run keeps its own recipe, {folder / 'recipe.toml'}; "
    if closed_rounds:
        return recipe + (
            "if that recipe is wrong, correct yours and start a new run with another --out; the "
            f"{closed_rounds} closed rounds stay charged in {folder / 'ledgers'}"
        )
    return recipe + (
        "if that recipe is wrong, correct yours and run `cloister simulate RECIPE --out "
        f"{folder}` without --resume: if nothing was charged yet, the folder is used again"
    )


simulate.__doc__ = EXAMPLE
