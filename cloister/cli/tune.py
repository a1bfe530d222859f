"""`cloister tune`: chooses settings of a recipe by the score on a public validation file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.simulate import EngineName, RayAddress
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from cloister.recipe import Recipe
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.ray_start import AnyRay
    from cloister.simulation.tuning.search import Search
    from cloister.simulation.tuning.tuning_file import TriedSetting, TuningFile

# The winner's recipe in a search's folder.
BEST = "best.toml"


def tune(
    recipe: Annotated[
        Path | None, typer.Argument(help="The study's recipe (TOML). Absent: the quickstart.")
    ] = None,
    searches: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="SECTION.KEY=LOW:HIGH[:log]",
            help="Search this field in a range, or among values A,B,…; may be repeated.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Number of settings to try; at most 500.")] = 20,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=100, help="Studies of each setting; the mean of their scores."),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the suggestions.")] = 0,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    is_public: Annotated[
        bool, typer.Option("--public", help="Declare that the training records are public.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            help="The records are private: ε that all trials together may cost each site.",
        ),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="This machine's cores, or the nodes of a Ray.")
    ] = EngineName.LOCAL,
    ray_address: RayAddress = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The search's folder, new or to be continued. Absent: runs/NAME-TIME."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="A new file for a page with plots (HTML). Absent: none."),
    ] = None,
    is_verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show stages' times and rounds' norms.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Choose settings of a recipe by simulations, scored on the public file data.validation.

    On public records it costs no privacy. On private ones every trial is a charged study and the ε
    of all trials add up: without --budget it is refused. The same command continues a search that
    was interrupted. Needs optuna: pip install 'cloister[tune]'.

    Example: cloister tune study.toml --public --search training.learning_rate=0.1:10:log
    --search privacy.max_grad_norm=1,4,8 --set data.validation=validation.jsonl --out runs/tuned
    """
    from cloister.cli.display import Display
    from cloister.recipe import warnings
    from cloister.simulation.early import refuse_early
    from cloister.simulation.ray_nodes import check_ray_address
    from cloister.simulation.ray_start import ray_of
    from cloister.simulation.tuning.search import plan_search
    from cloister.simulation.tuning.tried_settings import metric_of, open_search, run_search, winner
    from cloister.simulation.tuning.tuned_recipe import data_words

    check_ray_address("--ray-address", ray_address, engine.value)
    planned = plan_search(
        recipe,
        assignments or [],
        searches or [],
        trials=trials,
        seeds=seeds,
        seed=seed,
        is_public=is_public,
        budget=budget,
    )
    if page is not None and page.exists():
        raise UsageError(
            f"--page: {page} exists already and is not overwritten; name a new file. With --out of "
            "a search that is done, no trial runs again and only the page is written"
        )
    if page is not None and not page.parent.is_dir():
        raise UsageError(f"--page: {page} is in no folder that exists; make the folder first")
    refuse_early(planned.base, engine.value)
    name = f"{planned.base.study.name}-tune-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = out or Path("runs") / name
    display = Display(planned.base, is_verbose=is_verbose)
    for note in warnings(planned.base):
        display.warn(note)
    display.note(data_words(planned))
    before = len(open_search(folder, planned).trials)
    if before:
        display.note(f"{before} of {planned.trials} trials were closed before")
    metric = metric_of(planned)

    def told(trial: TriedSetting) -> None:
        score = trial.why if trial.score is None else f"{metric} {trial.score:.4f}"
        cell = ", ".join(f"{field} {text}" for field, text in trial.setting.items())
        display.note(f"trial {trial.number}: {cell}: {score}")

    def run(study: Recipe, place: RunDirectory, what: str) -> None:
        _simulate(study, place, what, engine, is_verbose, ray)

    try:
        with ray_of(engine.value, ray_address, planned.base.machine.device) as ray:
            content = run_search(planned, folder, metric, run, told)
    except KeyboardInterrupt:
        raise CloisterError(
            f"interrupted; closed trials and rounds are saved in {folder}; the same command "
            f"continues, with --out {folder}"
        ) from None
    best = winner(content.trials, metric)
    if best is None:
        raise CloisterError(
            f"no trial has a score; the first one: {content.trials[0].why}. Search other values"
        )
    _write(planned, content, best, metric, folder, page)
    _report(planned, content, best, metric, folder, page, as_json=as_json)


def _simulate(
    study: Recipe,
    place: RunDirectory,
    what: str,
    engine: EngineName,
    is_verbose: bool,
    ray: AnyRay | None,
) -> None:
    """Runs one study of a trial, or continues it."""
    from cloister.cli.display import Display
    from cloister.simulation.run import Events, simulate

    display = Display(study, closed_rounds=len(place.metrics()), is_verbose=is_verbose)
    display.note(what)
    events = Events(
        display.on_stage,
        display.on_step,
        display.on_round,
        display.note,
        display.warn,
        on_base=display.note,
        on_untrained=display.on_untrained,
    )
    with display:
        simulate(study, place, engine.value, events, ray=ray)


def _write(
    planned: Search,
    content: TuningFile,
    best: TriedSetting,
    metric: str,
    folder: Path,
    page: Path | None,
) -> None:
    """Writes the winner's recipe, and the page."""
    from cloister.files import write_whole
    from cloister.simulation.tuning.tuned_recipe import tuned_recipe
    from cloister.simulation.tuning.tuning_page import tuning_page

    scored = sum(trial.score is not None for trial in content.trials)
    write_whole(folder / BEST, tuned_recipe(planned, best, scored, metric).encode())
    if page is not None:
        write_whole(page, tuning_page(planned, content.trials, best, metric).encode())


def _report(
    planned: Search,
    content: TuningFile,
    best: TriedSetting,
    metric: str,
    folder: Path,
    page: Path | None,
    *,
    as_json: bool,
) -> None:
    """Prints the table of trials, or the search as JSON."""
    from cloister.simulation.tuning.tuned_recipe import data_words, score_words
    from cloister.simulation.tuning.tuning_page import columns, rows

    if as_json:
        together = planned.together
        document = {
            "metric": metric,
            "declared": dict(content.declared),
            "data": "public" if together is None else "private",
            "together": None if together is None else together.to_json(),
            "trials": [trial.to_json() for trial in content.trials],
            "best": best.to_json(),
            "recipe": str(folder / BEST),
            "page": None if page is None else str(page),
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    console = Terminal()
    shown = Table(box=None, header_style="bold")
    names = columns(planned, metric)
    for name in names:
        shown.add_column(name, justify="right" if name in names[-2:] else "left", overflow="fold")
    for cells in rows(planned, content.trials):
        shown.add_row(*cells)
    console.print(shown)
    scored = sum(trial.score is not None for trial in content.trials)
    for line in (f"chosen: {score_words(planned, best, scored, metric)}", data_words(planned)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"recipe: {folder / BEST}", markup=False, highlight=False, soft_wrap=True)
    if page is not None:
        console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)
