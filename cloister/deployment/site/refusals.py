"""Stores the reasons for failed rounds, for the site's operator, in a file of bounded size.

`refusals.jsonl` has a line for each, oldest first. The first ones are kept for good, because they
show how a problem began; of the later ones the newest are kept, and one line between them counts
the dropped ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.bounds import LARGEST_INTEGER
from cloister.files import open_file, write_whole
from cloister.owner_only import FILE

# Number of first lines that are kept for good, and of newest lines that stay when twice as many
# have come.
FIRST, LAST = 100, 100
# Characters of a reason: twenty problems of a recipe, as many as one error lists, with remedies.
MOST_WHY = 4_000
# Most characters of a study's name (a SHA-256 in hex) and of an error's type.
MOST_STUDY, MOST_KIND = 64, 64
# Most bytes of a line: every character with JSON's longest escape, `\\ud83d\\ude00`, and its
# fields.
MOST_LINE = 12 * (MOST_WHY + MOST_STUDY + MOST_KIND) + 512
# Most bytes of the file: 14 MB in the worst case, 60 kB for reasons of usual length.
MOST_BYTES = (FIRST + 2 * LAST + 1) * MOST_LINE

_KEYS = {"time": str, "study": str, "round": int, "kind": str, "why": str}


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """How many refusals were not kept, and since when.

    Attributes:
        count: Number of dropped refusals.
        first: Time of the first one.
        last: Time of the last one.
    """

    count: int
    first: str
    last: str


@dataclass(frozen=True)
class Refusals:
    """The file of refusals, for the site's operator.

    Attributes:
        path: The file; made with the first refusal. Remove it to start again.
    """

    path: Path

    def note(self, error: Exception, study: str, number: int) -> None:
        """Adds a refusal to the file.

        Args:
            error: The reason.
            study: The study that the question named.
            number: The round that the question named.

        Raises:
            OSError: It cannot be written.
        """
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "study": cut(study, MOST_STUDY),
            "round": number if abs(number) <= LARGEST_INTEGER else -1,
            "kind": cut(type(error).__name__, MOST_KIND),
            "why": cut(str(error), MOST_WHY),
        }
        before, dropped, after = self._parts()
        if len(before) + len(after) < FIRST + 2 * LAST and self._is_small():
            self._append(json.dumps(entry))
            return
        after = [*before[FIRST:], *after, entry]
        gone = after[:-LAST]
        if gone:
            dropped = Dropped(
                count=(dropped.count if dropped else 0) + len(gone),
                first=dropped.first if dropped else gone[0]["time"],
                last=gone[-1]["time"],
            )
        lines = [*before[:FIRST], *([_counted(dropped)] if dropped else []), *after[-LAST:]]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(self.path, text.encode(), mode=FILE)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the kept refusals, oldest first: time, study, round, kind of error and reason."""
        before, _, after = self._parts()
        return [*before, *after]

    def dropped(self) -> Dropped | None:
        """Returns how many refusals were not kept; None if all were."""
        return self._parts()[1]

    def _parts(self) -> tuple[list[dict[str, Any]], Dropped | None, list[dict[str, Any]]]:
        """Rows before the line that counts, that line, and rows after it.

        An unreadable line, as after a crash, hides no other line.
        """
        before: list[dict[str, Any]] = []
        after: list[dict[str, Any]] = []
        dropped = None
        for row in self._read():
            if "dropped" in row:
                dropped = _dropped(row) or dropped
            elif all(type(row.get(key)) is kind for key, kind in _KEYS.items()):
                (before if dropped is None else after).append(row)
        return before, dropped, after

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            with open_file(self.path) as file:
                text = file.read(MOST_BYTES)
        except OSError:
            return
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row

    def _is_small(self) -> bool:
        """Whether one more line is within the bound: an earlier version's lines had none."""
        return not self.path.exists() or self.path.stat().st_size + MOST_LINE <= MOST_BYTES

    def _append(self, line: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, FILE)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            is_whole = end == 0 or os.pread(descriptor, 1, end - 1) == b"\n"
            file.write(("" if is_whole else "\n").encode() + line.encode() + b"\n")
            os.fsync(descriptor)


def cut(text: str, most: int) -> str:
    """Shortens a text, and says how much of it is missing."""
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} … and {more:,} more characters"


def _counted(dropped: Dropped) -> dict[str, Any]:
    return {"dropped": dropped.count, "first": dropped.first, "last": dropped.last}


def _dropped(row: dict[str, Any]) -> Dropped | None:
    count, first, last = (row.get(key) for key in ("dropped", "first", "last"))
    if type(count) is not int or type(first) is not str or type(last) is not str:
        return None
    return Dropped(count=count, first=first, last=last)
