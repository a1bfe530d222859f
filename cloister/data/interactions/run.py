"""Writes one record for each person, from a file of interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.catalogue import read_catalogue
from cloister.data.cells import misfit
from cloister.data.interactions.forms import EVENTS, rows_of
from cloister.data.interactions.interaction_row import (
    Event,
    SequenceOptions,
    events_of,
    mind_events,
)
from cloister.data.outputs import check_new, sha256_of
from cloister.data.step_log import steps_of
from cloister.data.step_writing import DataStep, new_logged_file, write_first_step
from cloister.errors import DataError, UsageError

TOLD_EVERY = 5000


@dataclass(frozen=True, kw_only=True)
class SequenceReport:
    """Counts of what was read and written: true counts of private records, for their owner only.

    Attributes:
        rows: Rows that were read.
        persons: Records that were written.
        too_few: Persons that were left out because they have too few different items.
        low: Interactions that were left out because of their rating.
        unknown: Interactions that were left out because their item is not public.
    """

    rows: int
    persons: int
    too_few: int
    low: int
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "rows": self.rows,
            "persons": self.persons,
            "too_few": self.too_few,
            "low": self.low,
            "unknown": self.unknown,
        }


def sequence_file(
    source: Path,
    out: Path,
    options: SequenceOptions | None = None,
    progress: Callable[[int], object] | None = None,
) -> SequenceReport:
    """Writes one record for each person: `person`, and `items` in order of time.

    Args:
        source: The file of interactions.
        out: A new file, `.jsonl` or `.parquet`; its log is written beside it.
        options: The options; absent: the source is a table with a header.
        progress: Is called now and then with the number of rows so far.

    Raises:
        UsageError: `out` exists already, an option does not fit, or a column is not found.
        DataError: The source is missing or damaged; a row has too many or too few cells, lacks a
            value, or has a time that cannot be read or an item that is not public; times of two
            kinds are mixed; or no person has enough items. Nothing is written then.

    Guarantees:
        A person's record depends only on that person's rows and the public items, so ε of a study
        on the output is about the persons of the source. Items of equal times stay in the order of
        the rows. Memory grows with the number of interactions, because they are sorted.
    """
    options = options or SequenceOptions()
    check_new(out)
    if options.form not in EVENTS:
        raise UsageError(f"--form {options.form}: one of {', '.join(EVENTS)} is needed")
    if options.known_only and options.items is None:
        raise UsageError("--known-only: give the public file as --items too")
    known = None
    if options.items is not None:
        known = frozenset(read_catalogue(options.items, None, "--items").ids)
    tally = dict.fromkeys(("rows", "low", "unknown"), 0)
    kept = _Kept(known, options.known_only, tally)
    rows = rows_of(source, EVENTS[options.form], options.separator, options.encoding)
    counted = _counted(rows, tally, progress)
    read = mind_events if options.form == "mind" else events_of
    for where, event in read(counted, source.name, options):
        kept.add(where, event)
    written = kept.sequences(options.fewest)
    if not written:
        raise DataError(
            f"{source}: no person has {options.fewest} different items; give a file with more "
            "items per person, or a lower number"
        )
    report = SequenceReport(persons=len(written), too_few=kept.persons - len(written), **tally)
    with new_logged_file(out) as (writer, content):
        for number, (person, items) in enumerate(written, 1):
            writer.add({"person": person, "items": items}, f"{source.name}, person {number}")
        writer.end()
        digest = sha256_of(source)
        origin = {"name": source.name, "sha256": digest}
        settings = {"form": options.form, "fewest": options.fewest, "items": options.items}
        step = DataStep("sequences", settings, report.to_json())
        write_first_step(origin, out, content, step, steps_of(source, digest))
    return report


def _counted(
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    tally: dict[str, int],
    progress: Callable[[int], object] | None,
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for row in rows:
        tally["rows"] += 1
        if progress is not None and tally["rows"] % TOLD_EVERY == 0:
            progress(tally["rows"])
        yield row


class _Kept:
    """Interactions by person, in the order in which persons first come."""

    def __init__(
        self, known: AbstractSet[str] | None, known_only: bool, tally: dict[str, int]
    ) -> None:
        self._known, self._known_only, self._tally = known, known_only, tally
        self._of: dict[str, list[tuple[float, str]]] = {}
        self._first: tuple[str, str] | None = None

    @property
    def persons(self) -> int:
        return len(self._of)

    def add(self, where: str, event: Event) -> None:
        kind, moment = event.when
        self._first = self._first or (kind, where)
        if kind != self._first[0]:
            raise misfit(
                where,
                f"the time is {kind} here and {self._first[0]} in {self._first[1]}, which cannot "
                "be put in order; write all times in one form",
            )
        own = self._of.setdefault(event.person, [])
        if event.is_low:
            self._tally["low"] += 1
            return
        for item in event.items:
            if self._known is not None and item not in self._known:
                if not self._known_only:
                    raise misfit(
                        where,
                        "an item is not in the public file of items; correct one of the files, or "
                        "leave such items out with --known-only",
                    )
                self._tally["unknown"] += 1
                continue
            own.append((moment, item))

    def sequences(self, fewest: int) -> list[tuple[str, list[str]]]:
        found = []
        for person, had in self._of.items():
            had.sort(key=lambda one: one[0])  # stable: equal times stay as they come
            items = list(dict.fromkeys(item for _, item in had))
            if len(items) >= fewest:
                found.append((person, items))
        return found
