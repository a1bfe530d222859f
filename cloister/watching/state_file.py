"""Stores a watch's state in one file that is replaced as a whole, so that a restart continues.

It has the source's mark, the monitor's state and the outbox. So taking rows and putting their
alerts into the outbox is one step on disk.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, open_file, write_whole
from cloister.owner_only import FILE, private_folder
from cloister.watching.alert import Alert
from cloister.watching.debounce import Debounced
from cloister.watching.drift import DriftFigure, WindowFigures
from cloister.watching.monitor import MonitorState
from cloister.watching.outbox import Outbox, Waiting
from cloister.watching.row import Features
from cloister.watching.source import Mark
from cloister.watching.surges import Counts, Look, SurgeFigure

NAME, VERSION = "state.json", 1
# Number of refused lines that the report names.
SHOWN_LINES = 10


@dataclass(frozen=True)
class Refused:
    """Lines that were not rows, by reason.

    Attributes:
        by_reason: Number of refused lines by reason.
        first: Line numbers of the first ones, each with its reason.
    """

    by_reason: Mapping[str, int] = field(default_factory=dict)
    first: tuple[tuple[int, str], ...] = ()

    @property
    def count(self) -> int:
        """Returns the number of refused lines."""
        return sum(self.by_reason.values())

    def plus(self, number: int, reason: str) -> Refused:
        """Returns the counts with one more refused line."""
        by_reason = {**self.by_reason, reason: self.by_reason.get(reason, 0) + 1}
        return Refused(by_reason, (*self.first, (number, reason))[:SHOWN_LINES])


@dataclass(frozen=True)
class State:
    """The whole state of a watch.

    Attributes:
        digest: Hash of the watch file's settings and the reference; if it differs, windows start
            again.
        monitor: Windows, counts and conditions.
        outbox: The waiting alerts.
        refused: Lines that were not rows.
        mark: The place in the source.
    """

    digest: str
    monitor: MonitorState
    outbox: Outbox
    refused: Refused = field(default_factory=Refused)
    mark: Mark | None = None


@contextmanager
def opened_folder(folder: Path) -> Iterator[None]:
    """Creates a watch's folder, and locks it for this process.

    Raises:
        UsageError: Another process uses the folder.
        BadFileError: The folder cannot be created.
    """
    try:
        private_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise bad_file(error, "made") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"{folder}: another process watches with this folder; end it, or name another folder "
            "in [watch]"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def write_state(folder: Path, state: State) -> None:
    """Replaces the state on disk.

    Raises:
        BadFileError: It cannot be written; the previous state stays.
    """
    document = {"version": VERSION, **_to_json(state)}
    try:
        write_whole(folder / NAME, json.dumps(document, allow_nan=False).encode(), FILE)
    except OSError as error:
        raise bad_file(error, "written") from error


def read_state(folder: Path) -> State | None:
    """Reads the state from disk; None: there is none yet.

    Raises:
        BadFileError: It is damaged, or has another version.
    """
    path = folder / NAME
    try:
        with open_file(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise bad_file(error, "read") from error
    try:
        document = json.loads(content)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        return _of_json(document)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadFileError(
            f"{path}: not a state of this version of Cloister; move it away, and the watch starts "
            "again at the source's beginning"
        ) from error


def _to_json(state: State) -> dict[str, Any]:
    counts, one = state.monitor.counts, state.monitor
    return {
        "digest": state.digest,
        "mark": None if state.mark is None else dataclasses.asdict(state.mark),
        "refused": {
            "by_reason": dict(state.refused.by_reason),
            "first": [list(pair) for pair in state.refused.first],
        },
        "outbox": {
            "waiting": [
                {**dataclasses.asdict(entry), "alert": entry.alert.to_json()}
                for entry in state.outbox.waiting.values()
            ],
            "delivered": dict(state.outbox.delivered),
            "dropped": state.outbox.dropped,
        },
        "rows": one.rows,
        "closed": one.closed,
        "window": [
            [at, dict(f.categories), None if f.marks is None else sorted(f.marks), dict(f.numbers)]
            for at, f in one.window
        ],
        "debounced": {key: dataclasses.asdict(value) for key, value in one.debounced.items()},
        "windows": [dataclasses.asdict(window) for window in one.windows],
        "looks": [dataclasses.asdict(look) for look in one.looks],
        "alerts": [alert.to_json() for alert in one.alerts],
        "counts": {
            "topics": list(counts.topics),
            "step": counts.step,
            "closed": counts.closed,
            "late": counts.late,
            "beyond": counts.beyond,
            "open_rows": counts.open_rows.tolist(),
            "open_hits": counts.open_hits.tolist(),
            "steps": len(counts.rows),
            "rows": _sparse(counts.rows),
            "hits": _sparse(counts.hits),
            "surged": _sparse(counts.surged),
        },
    }


def _of_json(document: Mapping[str, Any]) -> State:
    found, counts = document, document["counts"]
    shape = (counts["steps"], len(counts["topics"]))
    monitor = MonitorState(
        counts=Counts(
            tuple(counts["topics"]),
            _dense(counts["rows"], shape),
            _dense(counts["hits"], shape),
            _dense(counts["surged"], shape).astype(bool),
            np.array(counts["open_rows"], dtype=np.int64).reshape(shape[1]),
            np.array(counts["open_hits"], dtype=np.int64).reshape(shape[1]),
            counts["step"],
            counts["closed"],
            counts["late"],
            counts["beyond"],
        ),
        rows=found["rows"],
        window=tuple(
            (at, Features(categories, None if marks is None else frozenset(marks), numbers))
            for at, categories, marks, numbers in found["window"]
        ),
        closed=found["closed"],
        debounced={key: Debounced(**value) for key, value in found["debounced"].items()},
        windows=tuple(
            WindowFigures(**{**w, "figures": tuple(DriftFigure(**f) for f in w["figures"])})
            for w in found["windows"]
        ),
        looks=tuple(
            Look(look["at"], tuple(SurgeFigure(**f) for f in look["figures"]))
            for look in found["looks"]
        ),
        alerts=tuple(Alert(**alert) for alert in found["alerts"]),
    )
    box = found["outbox"]
    entries = [Waiting(**{**entry, "alert": Alert(**entry["alert"])}) for entry in box["waiting"]]
    waiting = {(entry.alert.id, entry.address): entry for entry in entries}
    mark = found["mark"]
    return State(
        found["digest"],
        monitor,
        Outbox(waiting, box["delivered"], box["dropped"]),
        Refused(
            found["refused"]["by_reason"],
            tuple((number, reason) for number, reason in found["refused"]["first"]),
        ),
        None if mark is None else Mark(**mark),
    )


def _sparse(array: np.ndarray) -> list[list[int]]:
    """Returns the entries that are not 0, as [step, topic, count]."""
    steps, topics = np.nonzero(array)
    return [[int(s), int(t), int(array[s, t])] for s, t in zip(steps, topics, strict=True)]


def _dense(entries: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    array = np.zeros(shape, dtype=np.int64)
    for step, topic, count in entries:
        array[step, topic] = count
    return array
