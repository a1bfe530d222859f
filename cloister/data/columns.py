"""Counts, for each column of a file, the kinds of its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.data.values import Row, kind_of
from cloister.errors import DataError

# A JSON file can have other columns in every row; more than this is a mistake, or hostile.
MOST_COLUMNS = 10_000


@dataclass
class Columns:
    """Kinds of values by column, counted row by row.

    Attributes:
        rows: Number of rows that were counted.
        kinds: By column, the number of values of each kind (`text`, `an integer`, …).
    """

    rows: int = 0
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: Row, where: str) -> None:
        """Counts the kinds of a row's values.

        Args:
            row: Values by column.
            where: The file and row, for a message.

        Raises:
            DataError: The file has more than `MOST_COLUMNS` columns.
        """
        self.rows += 1
        for name, value in row.items():
            if name not in self.kinds:
                if len(self.kinds) == MOST_COLUMNS:
                    raise DataError(
                        f"{where}: more than {MOST_COLUMNS:,} different columns up to here; give "
                        "every row the same columns"
                    )
                self.kinds[name] = Counter()
            is_empty = isinstance(value, str) and not value.strip()
            self.kinds[name]["empty text" if is_empty else kind_of(value)] += 1

    def missing(self, name: str) -> int:
        """Returns how many rows lack the column, or have no value in it."""
        kinds: Mapping[str, int] = self.kinds.get(name, Counter())
        return self.rows - sum(kinds.values()) + kinds.get("nothing", 0)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns an object for each column: name, kinds of values, rows without a value."""
        return [
            {"name": name, "kinds": dict(kinds.most_common()), "missing": self.missing(name)}
            for name, kinds in self.kinds.items()
        ]
