"""`cloister run`: starts and controls studies over a network, at the coordinator."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.member import Server
from cloister.cli.server_authority import DEFAULT

if TYPE_CHECKING:
    from cloister.deployment.coordinator.folder import ServerFolder

app = typer.Typer(help="Start, watch, stop and resume studies.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")]
Watch = Annotated[bool, typer.Option("--watch", help="Watch the run to its end.")]


@app.command("start")
def start(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The study's recipe (TOML).")],
    server: Server = DEFAULT,
    name: Annotated[str | None, typer.Option(help="Absent: the study's name and the time.")] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="A participating site; may be repeated. Absent: every member."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    former: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the adapter of a finished run: its name here, or its folder. The "
            "sites see its SHA-256 before they accept, and their ledgers add both studies.",
        ),
    ] = None,
    license_: Annotated[
        str,
        typer.Option("--license", help="Votes: the license of the records, for their metadata."),
    ] = "",
    creator: Annotated[str, typer.Option(help="Votes: who publishes the records.")] = "",
    url: Annotated[str, typer.Option(help="Votes: the page of the records.")] = "",
    watch: Watch = False,
) -> None:
    """Start a study with the sites that were approved.

    Example: cloister run start study.toml --server coordinator --watch

    From a finished run: cloister run start next.toml --server coordinator --from triage-1

    A study of votes, which writes synthetic records and trains nothing, is started alike.
    """
    from cloister.deployment.coordinator.deployed import resolved_recipe
    from cloister.deployment.coordinator.deployed_votes import resolved_votes
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.journal import Run, RunStatus, write_run
    from cloister.deployment.coordinator.member_sites import plans_of
    from cloister.deployment.coordinator.members import connecting, read_members
    from cloister.deployment.coordinator.publication import PUBLICATION, keep_publication
    from cloister.deployment.coordinator.service import submit
    from cloister.errors import UsageError
    from cloister.export.croissant import Publication
    from cloister.ledger.stated import of_plan
    from cloister.recipe.vote_study import is_vote_study
    from cloister.server.former_run import read_former
    from cloister.server.run_directory import RunDirectory
    from cloister.server.start import keep_start
    from cloister.server.unused_run import clear_unused

    folder = ServerFolder.open(server)
    members = connecting(read_members(folder.members), datetime.now(UTC))
    unknown = sorted(set(site or ()) - set(members))
    if unknown:
        raise UsageError(
            f"--site: {', '.join(unknown)}: not an approved member; cloister member list shows the "
            "members"
        )
    chosen = {one: members[one] for one in sorted(site or members)}
    began = None if former is None else read_former(folder.named_run(former))
    votes = is_vote_study(recipe)
    published = Publication(license=license_, creator=creator, url=url)
    if not votes and published != Publication():
        raise UsageError(
            "--license, --creator, --url: given with a study that trains; they are of the records "
            "that a study of votes writes: leave them out"
        )
    if votes and (assignments or former):
        raise UsageError(
            "--set, --from: given with a study of votes, whose file states everything, and which "
            "begins with no adapter; leave them out"
        )
    study = (
        resolved_votes(recipe, chosen)
        if votes
        else resolved_recipe(
            recipe, assignments or [], chosen, None if began is None else began.former
        )
    )
    plans = plans_of(study, chosen)
    called = name or f"{study.study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    place = folder.run(called)
    if place.exists():
        raise UsageError(
            f"{called}: a run of this name exists in {place}; choose another --name, or "
            f"continue it: cloister run resume {called} --server {server}"
        )
    run = RunDirectory.create(place, study)
    fresh = Run(name=called, standing=RunStatus.SUBMITTED, flower_run=0, sites=tuple(chosen))
    try:
        if began is not None:
            keep_start(run, began)
        keep_publication(place, published)
        write_run(place, fresh)
        submit(folder, fresh)
    except Exception:
        # Only what is written here goes: the run may have begun although the answer did not come.
        for written in ("run.json", PUBLICATION):
            (place / written).unlink(missing_ok=True)
        if clear_unused(place):
            place.rmdir()
        raise
    for one, plan in plans.items():
        if plan.is_private:
            typer.echo(
                f"{one}: {of_plan(plan)}; if its policy is not stricter",
                err=True,
            )
    if began is not None:
        typer.echo(
            f"begins with the adapter of {began.former.run}, SHA-256 {began.former.adapter[:16]}…: "
            "a site that took part there charges this study to the same ledger, so for its people "
            "the ε add up; its certificate and the card state both together",
            err=True,
        )
    typer.echo(f"{called}: started with {', '.join(chosen)}")
    if watch:
        _watch(folder, called)
    else:
        typer.echo(f"next: cloister run watch {called} --server {server}")


@app.command("watch")
def watch(name: Name, server: Server = DEFAULT) -> None:
    """Watch a run to its end, with a line for each site. Ctrl-C does not stop the run.

    Example: cloister run watch triage-1 --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder

    _watch(ServerFolder.open(server), name)


@app.command("stop")
def stop(name: Name, server: Server = DEFAULT) -> None:
    """Stop a run; closed rounds are kept, and `run resume` goes on after them.

    Example: cloister run stop triage-1 --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.journal import ENDED, ask_to_stop, note, read_run
    from cloister.deployment.flower.control import Control
    from cloister.errors import UsageError

    folder = ServerFolder.open(server)
    place = folder.run(name)
    read_run(place)  # raises if there is no such run
    run = ask_to_stop(place)
    if run.standing in ENDED:
        raise UsageError(f"{name}: has ended already ({run.standing})")
    control = Control(folder.superlink)
    try:
        control.stop(run.flower_run)
    finally:
        control.close()
    note(place, "stopping")
    typer.echo(
        f"{name}: stopping; cloister run resume {name} continues after its last closed round"
    )


@app.command("resume")
def resume(name: Name, server: Server = DEFAULT, watch: Watch = False) -> None:
    """Go on with a run after its last closed round; nothing is charged twice.

    Example: cloister run resume triage-1 --server coordinator --watch
    """
    from dataclasses import replace

    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.journal import ENDED, RunStatus, note, read_run
    from cloister.deployment.coordinator.service import submit
    from cloister.errors import UsageError

    folder = ServerFolder.open(server)
    place = folder.run(name)
    run = read_run(place)
    if run.standing is RunStatus.FINISHED:
        raise UsageError(f"{name}: is finished; its result is in {_result(place)}")
    if run.standing not in ENDED and run.standing is not RunStatus.INTERRUPTED:
        raise UsageError(f"{name}: has not ended ({run.standing}); cloister run watch shows it")
    submit(folder, replace(run, resumed=0))
    note(place, "resumed", text="by the coordinator")
    typer.echo(f"{name}: continues")
    if watch:
        _watch(folder, name)


@app.command("list")
def listed(
    server: Server = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the runs and the state of each.

    Example: cloister run list --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.status import runs_of

    rows = runs_of(ServerFolder.open(server))
    if as_json:
        typer.echo(json.dumps({"runs": rows}))
        return
    for row in rows:
        typer.echo(
            f"{row['name']:<32}{row['standing']:<13}round {row['round']:<5}"
            f"{', '.join(row['sites'])}  {row['error']}"
        )
    if not rows:
        typer.echo("no runs yet; start one with cloister run start RECIPE")


def _watch(folder: ServerFolder, name: str) -> None:
    from cloister.cli.run_display import RunDisplay
    from cloister.deployment.coordinator.journal import RunStatus, events, read_run
    from cloister.errors import CloisterError

    place = folder.run(name)
    run = read_run(place)
    after = 0
    with RunDisplay(name, run.sites) as lanes:
        while True:
            run = read_run(place)
            for place_after, event in events(place, after):
                after = place_after
                lanes.add(event)
            if run.standing in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.STOPPED):
                break
            time.sleep(0.3)
    if run.standing is RunStatus.FINISHED:
        typer.echo(f"{_result(place)}")
        return
    error = CloisterError(
        f"{name}: {run.standing}{': ' + run.error if run.error else ''}; continue with: cloister "
        f"run resume {name} --server {folder.path}"
    )
    error.exit_code = run.exit_code or CloisterError.exit_code
    raise error


def _result(place: Path) -> Path:
    """The folder of a finished run's result: its adapter, or of a study of votes its records."""
    records = place / "records"
    return records if records.is_dir() else place / "adapter"
