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

from cloister.cli.run_at_url import RunAtUrl, again, place_of
from cloister.cli.simulate_refusals import (
    refuse_beside_resume,
    refuse_for_several,
    resumed_recipe,
)
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

    cloister simulate study.toml --out s3://bucket/clinics

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
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="The run's folder, or an fsspec URL to which it is copied after each round and "
            "at the end. Absent: runs/NAME-TIME.",
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With a URL as --out: the folder on a local disk of this machine in which the run "
            "works, and from which alone it is resumed. Absent: cloister/runs/NAME-HASH in the "
            "user's cache, by the URL.",
        ),
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

    several = bool(sweeps) or seeds is not None or folds is not None
    place = place_of(out, work, several)
    if folds is not None:
        from cloister.simulation.folds import check_folds

        check_folds(folds, seeds, sweeps or [])
    if former is not None and (resume or twin or several):
        raise UsageError(
            "--from: given with --resume, --twin, --sweep, --seeds or --folds; it begins one run "
            "with privacy or without: leave the others out (a run that began so is resumed with "
            "--resume --out alone)"
        )
    if several:
        single = "resume" if resume else "dry-run" if is_dry else "twin" if twin else None
        refuse_for_several(workers, single)
        run_sweep(
            recipe,
            assignments or [],
            sweeps or [],
            seeds or 1,
            engine=engine.value,
            ray_address=ray_address,
            out=None if out is None else Path(out),
            folds=folds,
            is_verbose=is_verbose,
            as_json=as_json,
        )
        return
    at_url: RunAtUrl | None = None
    if resume:
        if out is None or recipe is not None or assignments or is_dry:
            refuse_beside_resume(is_dry=is_dry)
        at_url = None if place is None else RunAtUrl.reopen(place)
        study = resumed_recipe(out, Path(out) if place is None else place.folder)
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
    name = f"{study.study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path("runs") / name if out is None else Path(out)
    if place is not None:
        folder = place.folder
        at_url = at_url or RunAtUrl.create(place, study)
        run = at_url.run
    else:
        run = RunDirectory.reopen(folder) if resume else RunDirectory.create(folder, study)
    if began is not None:
        from cloister.simulation.ledgers import go_on

        go_on(run, began)
        for line in went_on(study, began):
            typer.echo(line, err=True)
    display = Display(study, closed_rounds=len(run.metrics()), is_verbose=is_verbose)
    for note in warnings(study):
        display.warn(note)

    if at_url is not None:
        at_url.begin(display)
    from cloister.api.simulating import (
        run_study,
    )  # loads torch; all refusals above are faster without it
    from cloister.simulation.run import Events

    events = Events(
        display.on_stage,
        display.on_step,
        display.on_round if at_url is None else at_url.on_round(display.on_round),
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
            error.add_note(_after_resume(folder, again(place, folder, work), display.closed_rounds))
        raise
    except KeyboardInterrupt:
        raise CloisterError(
            f"interrupted in round {display.closed_rounds + 1}; {display.closed_rounds} rounds "
            f"are saved in {run.path}; continue with: cloister simulate --resume "
            f"{again(place, folder, work)}{' --twin' if with_twin else ''}"
        ) from None
    display.summary(result.finished)
    failed = None if at_url is None else at_url.finish(display)
    if as_json:
        facts = {} if at_url is None else at_url.facts(failed)
        typer.echo(json.dumps({**result.to_json(), **facts}))
    if failed is not None:
        raise failed


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


def _after_resume(folder: Path, options: str, closed_rounds: int) -> str:
    """Returns the remedy for a run that cannot be resumed with its recipe."""
    recipe = f"a resumed run keeps its own recipe, {folder / 'recipe.toml'}; "
    if closed_rounds:
        return recipe + (
            "if that recipe is wrong, correct yours and start a new run with another --out; the "
            f"{closed_rounds} closed rounds stay charged in {folder / 'ledgers'}"
        )
    return recipe + (
        "if that recipe is wrong, correct yours and run `cloister simulate RECIPE "
        f"{options}` without --resume: if nothing was charged yet, the folder is used again"
    )


simulate.__doc__ = EXAMPLE
