"""Reads and checks a site's records before any study arrives.

`cloister site doctor`, `start` and `reload` check them against the declarations in `site.toml`.
Errors are shown to the operator only and at once. A later study gets the records as they are, so it
cannot influence or observe the reading.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cloister.client.declared_records import RecordsConfig
from cloister.client.site_file import SiteFile
from cloister.client.stamp import ContentStamp
from cloister.data.catalogue import read_catalogue
from cloister.data.held_out import HeldOut, sides
from cloister.data.load import file_rows
from cloister.data.record_schema import Reading
from cloister.data.records import ItemsRecord, Record, ScoreRecord
from cloister.data.source import SITE
from cloister.data.step_log import steps_of
from cloister.data.unit_column import is_augmented
from cloister.data.unit_hash import side_digests
from cloister.data.values import shown
from cloister.errors import DataError, MisfitError, PluginError
from cloister.names import counted
from cloister.privacy.units import Unit
from cloister.tasks.build import record_kind
from cloister.tasks.plugins import labels_in
from cloister.tasks.score_scale import ScoreScale

UNDECLARED = "its label is not among records.labels"
NOT_LISTED = "it has an item that is not in records.items"


@dataclass(frozen=True)
class Misfit:
    """A row that fits no declaration, so that it is in no privacy unit.

    Attributes:
        row: Its number in the file, counted as in editors.
        reason: The column and the reason, in words without a quote of the row; or `UNDECLARED`.
        problem: The problem in detail, for the owner of the records.
    """

    row: int
    reason: str
    problem: str


@dataclass(frozen=True)
class SiteRecords:
    """A site's records. Everything in it is private, also the counts.

    Attributes:
        records: The records that fit the declarations, in the file's order.
        rows: Their numbers in the file.
        misfits: The rows that do not fit.
        nameless: The rows that fit but name no person, if a column of persons is declared.
        stamp: The stamp of the file that was read.
        declared: The declarations with which it was read (`declarations`).
        digests: The digest of each record's unit, by which it may be held out of training; empty
            if the site holds out nothing. They are made when the file is read, so that choosing
            takes the same time for every record.
    """

    records: tuple[Record, ...]
    rows: tuple[int, ...]
    misfits: tuple[Misfit, ...]
    nameless: tuple[Misfit, ...]
    stamp: ContentStamp
    declared: str
    digests: tuple[bytes, ...] = ()

    def trained_on(self, held_out: HeldOut | None) -> SiteRecords:
        """Returns these records without those that are held out.

        Args:
            held_out: Which units are held out; None: none are.
        """
        return self if held_out is None else self._of(held_out, 0)

    def kept_apart(self, held_out: HeldOut) -> SiteRecords:
        """Returns the held-out records alone."""
        return self._of(held_out, 1)

    def _of(self, held_out: HeldOut, side: int) -> SiteRecords:
        every = list(zip(self.records, self.rows, self.digests, strict=True))
        chosen = sides(every, self.digests, held_out)[side]
        records, rows, digests = zip(*chosen, strict=True) if chosen else ((), (), ())
        return replace(self, records=records, rows=rows, digests=digests)

    @property
    def reasons(self) -> Mapping[str, int]:
        """Counts the rows that do not fit, by reason."""
        return Counter(misfit.reason for misfit in self.misfits)

    def __str__(self) -> str:
        fit = "1 record fits" if len(self.records) == 1 else f"{len(self.records)} records fit"
        left = (f"{left_out(count)}: {why}" for why, count in self.reasons.items())
        return "; ".join([fit, *left])


def left_out(count: int) -> str:
    """Describes how many rows are in no privacy unit."""
    return f"{counted(count, 'row')} {'is' if count == 1 else 'are'} left out"


def declarations(file: SiteFile) -> str:
    """Everything in a `site.toml` that decides how its records are read, as one text.

    Raises:
        RecipeError: The file declares nothing.
    """
    parts: list[object] = [str(file.data), asdict(file.declared), asdict(file.columns)]
    parts += [file.policy.privacy.unit, file.site.encoding, file.site.separator]
    parts += ["couples_units"] if file.site.couples_units else []
    parts += ["held_out_share"] if file.site.held_out_share is not None else []
    return json.dumps(parts, sort_keys=True)


def read_records(file: SiteFile) -> SiteRecords:
    """Reads a site's records and checks them against the declarations in its `site.toml`.

    Args:
        file: The site's.

    Raises:
        RecipeError: The file declares nothing.
        DataError: The data file is missing, not a regular file, damaged, or changed while it was
            read; it mixes texts and integers in a column of identifiers or labels; or no row fits,
            or the rows form no unit of the declared kind.

    Guarantees:
        Whether a row fits follows from that row, `site.toml` and the log beside the file alone.
    """
    declared, path = file.declared, file.data
    before = ContentStamp.of(path)
    _check_coupling(file, before.sha256)
    records: list[Record] = []
    rows: list[int] = []
    misfits: list[Misfit] = []
    nameless: list[Misfit] = []
    find = labels_in(declared.task)
    known = _known_items(file)
    for row, found, unnamed in _each(file):
        if isinstance(found, MisfitError):
            misfits.append(Misfit(row, found.reason, str(found)))
        elif (off := _off_scale(found, file.scale)) is not None:
            misfits.append(Misfit(row, off, off))
        elif isinstance(found, ItemsRecord) and not known.issuperset(found.items):
            misfits.append(Misfit(row, NOT_LISTED, f"{NOT_LISTED} of {file.path.name}"))
        elif undeclared := _undeclared(found, declared, find):
            problem = f"{shown(undeclared)!r} is not among records.labels"
            misfits.append(Misfit(row, UNDECLARED, problem))
        else:
            records.append(found)
            rows.append(row)
            if unnamed is not None:
                nameless.append(Misfit(row, unnamed.reason, str(unnamed)))
    if ContentStamp.of(path).sha256 != before.sha256:
        raise DataError(
            f"{path}: changed while it was read; run the command again once it is complete"
        )
    if not records:
        raise DataError(_none_fits(file, misfits))
    if file.policy.privacy.unit is Unit.PERSON and len(nameless) == len(records):
        raise DataError(
            f"{path}: none of {counted(len(records), 'record')} names a person, but "
            f"{file.path.name} declares persons as the units ({_first(nameless)}); correct "
            "privacy.person in site.toml, or that column"
        )
    holds_out = file.site.held_out_share is not None
    return SiteRecords(
        tuple(records),
        tuple(rows),
        tuple(misfits),
        tuple(nameless),
        before,
        declarations(file),
        side_digests(records) if holds_out else (),
    )


def _check_coupling(file: SiteFile, sha256: str) -> None:
    """Refuses a file whose preparation coupled units if `site.toml` does not say so.

    Charges and certificates follow from `site.toml` and not from the log beside the file: so no
    answer reveals whether a record was edited after the log was written.
    """
    coupled = [step for step in steps_of(file.data, sha256) if step.get("couples_units")]
    if coupled and not file.site.couples_units:
        why = coupled[0].get("why", f"{coupled[0].get('command')} looked at more than one unit")
        raise DataError(
            f"{file.data}: {why}, so ε is about the units of this file and not about those of its "
            f"source; set site.couples_units = true in {file.path.name} (ledger, certificates and "
            "cards then say so), or make the file without that step"
        )


def _none_fits(file: SiteFile, misfits: Sequence[Misfit]) -> str:
    if not misfits:
        return f"{file.data}: has no rows; correct site.data in site.toml, or fill the file"
    rows = "its one row does not fit" if len(misfits) == 1 else f"none of {len(misfits)} rows fits"
    return (
        f"{file.data}: {rows} what {file.path.name} declares ({_first(misfits)}); "
        "correct the columns in [site] or the labels in [records]"
    )


def _first(misfits: Sequence[Misfit]) -> str:
    """Describes the first of some rows; services log it, so it quotes nothing of the row."""
    return f"row {misfits[0].row}: {misfits[0].reason}"


def _each(file: SiteFile) -> Iterator[tuple[int, Record | MisfitError, MisfitError | None]]:
    """Yields each row's number, its record or its problem, and why it names no person.

    A row without a person stays, because units of records need none. A column that mixes texts and
    integers is an error of the file, not of a row, because which kind fits would depend on other
    rows.

    Raises:
        DataError: The file as a whole cannot be read.
        MixedColumnError: A column mixes texts and integers.
    """
    kind, columns = record_kind(file.declared.task), file.columns
    reading = Reading(
        kind,
        columns,
        persons=True,
        sites=False,
        asker=SITE,
        augmented=is_augmented(file.data),
    )
    for number, row in file_rows(file.data, "train", reading.columns_read, SITE, file.form):
        try:
            record, unnamed = reading.record_and_person(row, file.data.name, number)
            yield number, record, unnamed
        except MisfitError as error:
            yield number, error, None


def _known_items(file: SiteFile) -> frozenset[str]:
    """Returns the ids of the public items that the site declares; empty for another task.

    Raises:
        DataError: The file of items is missing, or holds no items.
    """
    if file.items is None:
        return frozenset()
    return frozenset(read_catalogue(file.items, None, "records.items", SITE).ids)


def _off_scale(record: Record, scale: ScoreScale | None) -> str | None:
    """Returns why a record's score is not on the declared scale; None if it is, or has no score."""
    if scale is None or not isinstance(record, ScoreRecord):
        return None
    return scale.problem(record.score)


def _undeclared(
    record: Record, declared: RecordsConfig, find: Callable[[Record], Iterable[str]]
) -> str | None:
    """The problem if a record has an undeclared label, or if a plug-in cannot read it; else
    None."""
    try:
        return next((label for label in find(record) if label not in declared.labels), None)
    except PluginError:
        return "a label that the task cannot read"


class RecordSource:
    """The records that a site serves, until it is told to read them again.

    Args:
        file: The site's.

    Attributes:
        current: The served records.
        readings: Number of readings; it identifies the served records.

    Raises:
        RecipeError: The file declares nothing.
        DataError: The records cannot be read.

    Guarantees:
        Only `reload` changes `current`, so an edited file has no effect before the operator asks
        for it, and none during a round.
    """

    def __init__(self, file: SiteFile) -> None:
        self._file = file
        self.current = read_records(file)
        self.readings = 1

    def document(self) -> dict[str, Any]:
        """Describes which records are served, for `cloister site status`."""
        return {
            "stamp": self.current.stamp.document(),
            "records": len(self.current.records),
            "misfits": dict(self.current.reasons),
        }

    def changed(self) -> bool:
        """Whether the file has changed since it was read, or is gone."""
        return not self.current.stamp.is_current(self._file.data)

    def reload(self, file: SiteFile | None = None) -> SiteRecords:
        """Reads the records again.

        Args:
            file: The site's file if it changed; None: as before.

        Raises:
            RecipeError: The file declares nothing.
            DataError: They cannot be read; the earlier ones stay.
        """
        file = file or self._file
        self.current = read_records(file)
        self.readings += 1
        self._file = file
        return self.current
