"""The events and the status of a deployed run, written as they happen.

events.jsonl   one line per event: `time`, `what`, and `round`, `site` or `text` if they apply
run.json       the run's status (`Run`)
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloister.errors import BadFileError
from cloister.files import write_whole


class RunStatus(StrEnum):
    """The states of a run: it waits, runs, was interrupted, or has ended."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"  # by a crash: it resumes automatically


# Events that a site can cause again and again, by disconnecting and connecting.
REPEATED = frozenset({"preparing", "asked", "answered", "lost", "late"})
# Above this size of the file, such events are left out. It holds about 300,000 events: more than
# five for each site and round, in a thousand rounds of 30 sites.
MOST_BYTES = 2**25
# Most characters of an event's text: the same limit as a site has for the reason of a refusal.
MOST_TEXT = 4_000

ENDED = (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The status of a run, as stored in its folder.

    Attributes:
        name: Name of its folder.
        standing: Its status.
        flower_run: Its id in Flower; a new one after every crash.
        sites: The sites that take part.
        resumed: Number of restarts after a crash since it last closed a round.
        error: Why it failed; for the coordinator only.
        exit_code: Exit code of the command that watches it.
    """

    name: str
    standing: RunStatus
    flower_run: int
    sites: tuple[str, ...]
    resumed: int = 0
    error: str = ""
    exit_code: int = 0


def read_run(folder: Path) -> Run:
    """Reads the status of a run.

    Raises:
        BadFileError: The folder has no deployed run, or its file is damaged.
    """
    try:
        fields = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        fields["standing"] = RunStatus(fields["standing"])
        fields["sites"] = tuple(fields["sites"])
        return Run(**fields)
    except FileNotFoundError as error:
        raise BadFileError(
            f"{folder.name}: not a run of this coordinator; cloister run list shows its runs"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFileError(
            f"{folder / 'run.json'}: damaged ({error}); restore it from a backup"
        ) from error


def write_run(folder: Path, run: Run) -> None:
    """Writes the status of a run."""
    write_whole(folder / "run.json", json.dumps(dataclasses.asdict(run), indent=2).encode())


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Locks a run's folder, so that no other process changes its status."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def change_run(folder: Path, **changes: Any) -> Run:
    """Changes a run's status.

    A request to stop is kept: a run that is stopping does not run again, and an interruption stops
    it.
    """
    with holding(folder):
        run = read_run(folder)
        to = changes.get("standing")
        if run.standing is RunStatus.STOPPING and to is RunStatus.RUNNING:
            changes["standing"] = RunStatus.STOPPING
        if run.standing is RunStatus.STOPPING and to is RunStatus.INTERRUPTED:
            changes["standing"] = RunStatus.STOPPED
        run = dataclasses.replace(run, **changes)
        write_run(folder, run)
    return run


def ask_to_stop(folder: Path) -> Run:
    """Asks a run to stop and returns its former status; an ended run stays as it is."""
    with holding(folder):
        run = read_run(folder)
        if run.standing not in ENDED:
            waits = run.standing not in (RunStatus.RUNNING, RunStatus.STOPPING)
            to = RunStatus.STOPPED if waits else RunStatus.STOPPING
            write_run(folder, dataclasses.replace(run, standing=to))
    return run


def all_runs(runs: Path) -> list[Run]:
    """Every run of a coordinator, by name; a run with a damaged file counts as failed."""
    found = []
    for path in sorted(runs.glob("*/run.json")):
        try:
            found.append(read_run(path.parent))
        except BadFileError as error:
            damaged = Run(
                name=path.parent.name,
                standing=RunStatus.FAILED,
                flower_run=0,
                sites=(),
                error=str(error),
                exit_code=error.exit_code,
            )
            found.append(damaged)
    return found


def note(folder: Path, what: str, **fields: Any) -> None:
    """Adds an event; its line is written completely or not at all.

    Sites cannot fill the disk: texts are cut, and when the file is long, events of `REPEATED` kinds
    are left out; the last kept line says so.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = {key: _cut(value) for key, value in fields.items()}
    line = json.dumps({"time": now, "what": what, **said}).encode() + b"\n"
    descriptor = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        length = os.fstat(descriptor).st_size
        if what in REPEATED and length >= MOST_BYTES:
            return
        if what in REPEATED and length + len(line) >= MOST_BYTES:
            text = f"{', '.join(sorted(REPEATED))}: no further ones are written to the journal"
            line += json.dumps({"time": now, "what": "note", "text": text}).encode() + b"\n"
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= MOST_TEXT:
        return value
    return f"{value[:MOST_TEXT]} … and {len(value) - MOST_TEXT:,} more characters"


def events(folder: Path, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """A run's events, oldest first, each with the position after it.

    Args:
        folder: The run's.
        after: Position to begin at: that after the last event that was read.
    """
    path = folder / "events.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(after)
        for line in file:
            if not line.endswith(b"\n"):
                return
            after += len(line)
            try:
                yield after, json.loads(line)
            except ValueError:
                continue


def ready_sites(folder: Path) -> frozenset[str]:
    """Returns the sites of a run whose last event says that they take part."""
    said: dict[str, str] = {}
    for _, event in events(folder):
        if event.get("what") in ("ready", "refused", "retired"):
            said[str(event.get("site"))] = event["what"]
    return frozenset(site for site, what in said.items() if what == "ready")
