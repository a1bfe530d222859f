"""Reads the facts of a coordinator's page from its folder: service, members, and each run.

The sites' ε are left out, although their replies state them: each site shows its own.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cloister.dashboard.timeline import Timeline, timeline_of
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import ENDED, Run, RunStatus, all_runs, events
from cloister.deployment.coordinator.status import status_of
from cloister.deployment.enrolment.authority import over_at
from cloister.errors import BadFileError, CloisterError
from cloister.privacy.estimated_scores import EvaluatedRound, evaluated_rounds
from cloister.server.run_directory import RunDirectory

# Most runs that a page shows in full, and most remarks of each; the list has all runs.
IN_FULL, REMARKS = 5, 8
# Largest picture that a page holds, in bytes: five times one of 40 classes, which takes 200 kB.
MOST_PICTURE = 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of one run that a coordinator's page shows.

    Attributes:
        run: The run with its status.
        num_rounds: Number of rounds in its recipe; 0 if that cannot be read.
        rows: Its closed rounds.
        lanes: The timeline of each site.
        remarks: Unusual events, oldest first.
        last: Time of its last event; "" before the first.
        checkpoint: Time of its last saved state, in seconds since 1970; None before the first.
        classes: The picture of the classes' scores, as a `data:` address; "" if there is none.
        evaluations: Estimates of its private evaluations, oldest first.
        next_step: The next command to type.
    """

    run: Run
    num_rounds: int
    rows: tuple[Mapping[str, Any], ...]
    lanes: Timeline
    remarks: tuple[Mapping[str, Any], ...]
    last: str
    checkpoint: float | None
    classes: str
    next_step: str
    evaluations: tuple[EvaluatedRound, ...] = ()

    @property
    def round(self) -> int:
        """Returns the number of the last closed round."""
        return int(self.rows[-1]["round"]) if self.rows else 0


@dataclass(frozen=True, kw_only=True)
class CoordinatorFacts:
    """The facts that a coordinator's page shows.

    Attributes:
        status: The values of `cloister server status`.
        over: When the endpoint's certificate expires.
        runs: The unfinished runs first, then the latest.
        start: The command that starts its service.
    """

    status: Mapping[str, Any]
    over: datetime
    runs: tuple[RunFacts, ...]
    start: str


def read_coordinator(path: Path, now: datetime) -> CoordinatorFacts:
    """Reads a coordinator's folder.

    Raises:
        BadFileError: A file of it is missing or damaged.
    """
    folder = ServerFolder.open(path)
    try:
        status = status_of(folder, now)
        over = over_at((folder.path / "endpoint.crt").read_bytes())
        runs = [_run(folder, run, bool(status["running"])) for run in all_runs(folder.runs)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFileError(f"{folder.path}: a file in it is damaged ({error!r})") from error
    runs.sort(key=lambda facts: facts.last, reverse=True)
    runs.sort(key=lambda facts: facts.run.standing in ENDED)
    return CoordinatorFacts(status=status, over=over, runs=tuple(runs), start=_start(folder.path))


def _run(folder: ServerFolder, run: Run, is_served: bool) -> RunFacts:
    place = RunDirectory(folder.run(run.name))
    journal = [event for _, event in events(place.path)]
    rows, checkpoint = place.metrics(), place.path / "checkpoint" / "latest.json"
    is_going = is_served and run.standing not in ENDED
    return RunFacts(
        run=run,
        num_rounds=_num_rounds(place),
        rows=tuple(rows),
        lanes=timeline_of(run.sites, journal, rows, is_going=is_going),
        remarks=tuple(e for e in journal if e.get("text"))[-REMARKS:],
        last=str(journal[-1]["time"]) if journal else "",
        checkpoint=checkpoint.stat().st_mtime if checkpoint.exists() else None,
        classes=picture(place.path / "classes.png"),
        next_step=next_step(run, folder.path, is_served),
        evaluations=evaluated_rounds(place.evaluations()),
    )


def picture(path: Path) -> str:
    """Returns a PNG as an address that needs no request; "": there is none that a page can hold."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_PICTURE + 1)
    except FileNotFoundError:
        return ""
    if len(content) > MOST_PICTURE or not content.startswith(_PNG):
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _num_rounds(place: RunDirectory) -> int:
    try:
        return place.recipe().federation.num_rounds
    except CloisterError:  # a damaged run must not hide the others
        return 0


def next_step(run: Run, folder: Path, is_served: bool) -> str:
    """Returns the command that continues a run."""
    server, name = shlex.quote(str(folder)), shlex.quote(run.name)
    if run.standing is RunStatus.FINISHED:
        if (folder / "runs" / run.name / "records").is_dir():  # of a study of votes
            return f"head {shlex.quote(str(folder / 'runs' / run.name / 'records'))}/*.README.md"
        return f"cloister evaluate {shlex.quote(str(folder / 'runs' / run.name))} --data FILE"
    if run.standing in ENDED:
        return f"cloister run resume {name} --server {server}"
    return f"cloister run watch {name} --server {server}" if is_served else _start(folder)


def _start(folder: Path) -> str:
    return f"cloister server start {shlex.quote(str(folder))}"
