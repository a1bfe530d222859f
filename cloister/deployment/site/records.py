"""A site's records, read and checked under its own command, before any study arrives.

`cloister site doctor`, `start` and `reload` read them against what `site.toml` declares. What is
wrong shows to the operator, at home and at once; a study later finds them as they are, so nothing
that it asks can show in how reading goes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cloister.client.site_file import RecordsConfig, SiteFile
from cloister.client.stamp import ContentStamp
from cloister.data.load import file_rows
from cloister.data.records import Record
from cloister.data.schema import Reading
from cloister.data.source import SITE
from cloister.data.steps import steps_of
from cloister.data.unit_column import is_augmented
from cloister.data.values import shown
from cloister.errors import DataError, MisfitError, PluginError
from cloister.names import counted
from cloister.privacy.units import Unit
from cloister.tasks.build import record_kind
from cloister.tasks.plugins import labels_in

UNDECLARED = "its label is not among records.labels"


@dataclass(frozen=True)
class Misfit:
    """A row that is in no unit, or in none of persons.

    Attributes:
        row: Its number in the file, as editors count.
        reason: Which column and why, in words that quote nothing of the row; or `UNDECLARED`.
        problem: What is wrong with it; for whoever owns it.
    """

    row: int
    reason: str
    problem: str


@dataclass(frozen=True)
class SiteRecords:
    """What a site has to learn from. All of it is private, the counts too.

    Attributes:
        records: Those that fit what is declared, in the file's order.
        rows: Their numbers in the file, as editors count.
        misfits: The rows that do not.
        nameless: The rows that fit and name no person, where a column of persons is declared.
        stamp: The file as it was read.
        declared: By what of `site.toml` it was read (`declarations`).
    """

    records: tuple[Record, ...]
    rows: tuple[int, ...]
    misfits: tuple[Misfit, ...]
    nameless: tuple[Misfit, ...]
    stamp: ContentStamp
    declared: str

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
    """All of a `site.toml` that says how its records are read, as one text.

    Raises:
        RecipeError: The file declares nothing.
    """
    told = [str(file.data), asdict(file.declared), asdict(file.columns), file.policy.privacy.unit]
    told += ["couples_units"] if file.site.couples_units else []
    return json.dumps(told, sort_keys=True)


def read_records(file: SiteFile) -> SiteRecords:
    """Reads a site's records against what its `site.toml` declares.

    Args:
        file: The site's.

    Raises:
        RecipeError: The file declares nothing.
        DataError: The data file is missing, no regular file, damaged, was written meanwhile, mixes
            texts and integers in a column of identifiers or labels, none of its rows fits, or they
            make not one unit of the declared kind.

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
    for row, found, unnamed in _each(file):
        if isinstance(found, MisfitError):
            misfits.append(Misfit(row, found.reason, str(found)))
        elif undeclared := _undeclared(found, declared, find):
            problem = f"{shown(undeclared)!r} is not among records.labels"
            misfits.append(Misfit(row, UNDECLARED, problem))
        else:
            records.append(found)
            rows.append(row)
            if unnamed is not None:
                nameless.append(Misfit(row, unnamed.reason, str(unnamed)))
    if ContentStamp.of(path).sha256 != before.sha256:
        raise DataError(f"{path}: was written while it was read; do it again once it is whole")
    if not records:
        raise DataError(_none_fits(file, misfits))
    if file.policy.privacy.unit is Unit.PERSON and len(nameless) == len(records):
        raise DataError(
            f"{path}: not one person is told apart in {counted(len(records), 'record')}, and "
            f"{file.path.name} declares persons as the units ({_first(nameless)}); correct "
            "privacy.person in site.toml, or that column"
        )
    return SiteRecords(
        tuple(records), tuple(rows), tuple(misfits), tuple(nameless), before, declarations(file)
    )


def _check_coupling(file: SiteFile, sha256: str) -> None:
    """Refuses a file whose steps coupled units where `site.toml` does not say so.

    What is charged and certified follows from `site.toml` and not from what lies beside the file,
    so that no answer tells whether somebody edited a record after its log was written.
    """
    coupled = [step for step in steps_of(file.data, sha256) if step.get("couples_units")]
    if coupled and not file.site.couples_units:
        why = coupled[0].get("why", f"{coupled[0].get('command')} looked at more than one unit")
        raise DataError(
            f"{file.data}: {why}, so ε is about the units of this file and not of those before it; "
            f"set site.couples_units = true in {file.path.name} (ledger, certificates and cards "
            "then say so), or make the file without that step"
        )


def _none_fits(file: SiteFile, misfits: Sequence[Misfit]) -> str:
    if not misfits:
        return f"{file.data}: has no row; correct site.data in site.toml, or fill the file"
    rows = "its one row does not fit" if len(misfits) == 1 else f"none of {len(misfits)} rows fits"
    return (
        f"{file.data}: {rows} what {file.path.name} declares ({_first(misfits)}); "
        "correct the columns in [site] or the labels in [records]"
    )


def _first(misfits: Sequence[Misfit]) -> str:
    """The first of some rows; services log it, so what may quote the row is left out."""
    return f"row {misfits[0].row}: {misfits[0].reason}"


def _each(file: SiteFile) -> Iterator[tuple[int, Record | MisfitError, MisfitError | None]]:
    """Every row's number, with its record or what is wrong with it, and why it names no person.

    A row without a person stays: where records are the units it needs none. A column that mixes
    texts and integers is no misfit of a row: which of the two kinds fits would depend on the other
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
    for number, row in file_rows(file.data, "train", reading.columns_read, SITE):
        try:
            record, unnamed = reading.record_and_person(row, file.data.name, number)
            yield number, record, unnamed
        except MisfitError as error:
            yield number, error, None


def _undeclared(
    record: Record, declared: RecordsConfig, find: Callable[[Record], Iterable[str]]
) -> str | None:
    """A label of a record that is not declared, or that a plug-in cannot read it."""
    try:
        return next((label for label in find(record) if label not in declared.labels), None)
    except PluginError:
        return "a label that the task cannot read"


class RecordSource:
    """The records that a site serves: those that were read last, until it is told to read again.

    Args:
        file: The site's.

    Attributes:
        current: What is served.
        readings: How many times they were read; another number, other records.

    Raises:
        RecipeError: The file declares nothing.
        DataError: The records cannot be read.

    Guarantees:
        `current` changes in `reload` alone, so that a file which is edited during a study changes
        nothing before the operator says so, and nothing during a round.
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
            file: The site's, where it changed; else as before.

        Raises:
            RecipeError: The file declares nothing.
            DataError: They cannot be read; those from before stay.
        """
        file = file or self._file
        self.current = read_records(file)
        self.readings += 1
        self._file = file
        return self.current
