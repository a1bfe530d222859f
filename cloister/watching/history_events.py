"""Reads the real events of a labelled history, from JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloister.bounds import shortened
from cloister.errors import DataError
from cloister.json_text import read_json
from cloister.watching.parsing import LONGEST_CELL, RowError, read_time
from cloister.watching.setup import lines_of

# Most events of a history, and most bytes of an event's line.
MOST_EVENTS, LONGEST_LINE = 10_000, 4096
_FORM = '{"kind": "surge", "key": "acme", "start": "2026-03-02T09:00:00Z", "end": …}'


@dataclass(frozen=True)
class TrueEvent:
    """A real event of a history.

    Attributes:
        kind: The kind of alert that should report it.
        key: The topic or feature; empty: any.
        start: Its start in seconds since 1970.
        end: Its end in seconds since 1970; not before `start`.
    """

    kind: Literal["drift", "surge"]
    key: str
    start: float
    end: float


def read_events(path: Path) -> tuple[TrueEvent, ...]:
    """Reads the events of a labelled history.

    Raises:
        DataError: The file cannot be read, or a line is not an event.
    """
    found = []
    for number, line in lines_of(path):
        try:
            value = read_json(line or b"", most_bytes=LONGEST_LINE)
            found.append(_event(value))
        except (ValueError, RowError) as error:
            raise DataError(
                f"{path}, line {number}: no event ({shortened(str(error))[1:-1]}); {_FORM} is "
                "needed"
            ) from error
        if len(found) > MOST_EVENTS:
            raise DataError(f"{path}: more than {MOST_EVENTS} events given")
    return tuple(found)


def _event(value: object) -> TrueEvent:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if unknown := value.keys() - {"kind", "key", "start", "end"}:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    kind, key = value.get("kind"), value.get("key", "")
    if kind not in ("drift", "surge"):
        raise ValueError("kind is neither drift nor surge")
    if not isinstance(key, str) or len(key) > LONGEST_CELL:
        raise ValueError("key is not a name")
    start, end = read_time(value.get("start")), read_time(value.get("end"))
    if end < start:
        raise ValueError("end is before start")
    return TrueEvent(kind, key, start, end)
