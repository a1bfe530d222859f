"""Counts privacy units, and warns where one identifier covers too many records.

Only the identifier tells two persons apart. If identifiers are missing and a placeholder (`NA`,
`0`) is in their place, many persons become one unit: they are protected as one person, and all but
the first few of their records are never used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from cloister.data.records import Record
from cloister.data.values import shown
from cloister.errors import DataError
from cloister.names import counted

# Warn if one identifier has a tenth of all records: only a unit's first few are used, so a tenth of
# the site's records is lost if these are several persons.
LARGE_SHARE = 0.1
# … and if it has several times the median, so that a few persons of similar sizes give no warning:
# where persons have 1, 2, … k records, the largest has twice the median.
LARGE_RATIO = 3
# Spellings of a missing value: pandas' list (`read_csv`, na_values), and what people type. They are
# compared in lower case, with letters and digits only, and without zeros at either end.
_MISSING = frozenset(
    {"", "na", "nan", "null", "none", "nil", "nat", "1ind", "1qnan", "missing", "unknown"}
    | {"undefined", "notavailable", "notapplicable", "anonymous", "tbd", "xxx"}
)


@dataclass(frozen=True)
class Census:
    """True counts of privacy units, which only the records' owner may see.

    Attributes:
        unit: The privacy unit, `record` or `person`.
        records: Number of rows.
        units: Number of privacy units.
        largest: Rows of the largest unit.
        name: The largest person's identifier; None where records are the units.
        warnings: Signs of wrong identifiers, one line each.
    """

    unit: str
    records: int
    units: int
    largest: int
    name: str | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.unit != "person" and self.units == self.records:
            return f"{counted(self.records, 'record')}, each a privacy unit"
        if self.unit != "person":
            each = self.records / self.units
            return (
                f"{counted(self.units, 'record')} (privacy units) in {counted(self.records, 'row')}"
                f", copies among them: {each:.3g} a record, at most {self.largest}"
            )
        text = (
            f"{counted(self.records, 'record')} of {counted(self.units, 'person')} (privacy units)"
        )
        return f"{text}; the largest has {self.largest}" if self.units else text

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON values."""
        return {
            "unit": self.unit,
            "records": self.records,
            "units": self.units,
            "largest_unit": self.largest,
            "warnings": list(self.warnings),
        }


def census(records: Sequence[Record], unit: str) -> Census:
    """Counts the privacy units of one site's records.

    Args:
        records: The site's records; private.
        unit: `record` or `person`.

    Raises:
        DataError: The unit is the person, and a record names none.
    """
    if unit != "person":
        rows = Counter(record.unit for record in records if record.unit is not None)
        alone = len(records) - rows.total()
        largest = max([*rows.values(), min(alone, 1)])
        return Census(unit, len(records), len(rows) + alone, largest)
    sizes: Counter[str] = Counter()
    for number, record in enumerate(records, 1):
        if record.person is None:
            raise DataError(
                f"record {number} names no person, but privacy.unit is person; set data.person to "
                "the column of persons"
            )
        sizes[record.person] += 1
    return census_of(sizes)


def census_of(sizes: Counter[str]) -> Census:
    """Returns the census of persons, from the number of records of each.

    Args:
        sizes: Number of records by identifier; private.
    """
    if not sizes:
        return Census("person", 0, 0, 0)
    name, largest = sizes.most_common(1)[0]
    return Census("person", sizes.total(), len(sizes), largest, name, _warnings(sizes))


def is_missing(name: str) -> bool:
    """Returns whether an identifier or label looks like a spelling of a missing value (`NA`,
    `0`)."""
    return re.sub(r"[\W_]", "", name).casefold().strip("0") in _MISSING


def _warnings(sizes: Counter[str]) -> tuple[str, ...]:
    records, usual = sizes.total(), median_low(sizes.values())
    notes = []
    for name, size in sizes.most_common():
        missing = is_missing(name)
        alone = len(sizes) == 1 and size > 1
        large = size >= LARGE_SHARE * records and size > LARGE_RATIO * usual
        if alone or large or (missing and size > usual):
            why = "looks like a missing value" if missing else "has far more than others"
            notes.append(
                f"the identifier {shown(name)!r} holds {size} of {records} records "
                f"({size / records:.0%}) and {why}: if these are several persons, they are "
                "protected as one, and only their first few records are used; correct the file"
            )
    return tuple(notes)
