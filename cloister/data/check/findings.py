"""A finding: one thing that looks wrong in a file, with the first rows that show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Rows that a finding lists: enough for a person to look at, without filling a page.
MOST_ROWS = 5


@dataclass
class FileFinding:
    """Something that a person should look at.

    Attributes:
        code: An identifier for programs, stable across versions.
        message: What was found, and what to do about it.
        count: Number of times.
        rows: The first rows in which it was found.
    """

    code: str
    message: str
    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        """Counts one more row, and keeps its number if it is among the first."""
        self.count += 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(row)

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.rows)) + (", …" if self.count > len(self.rows) else "")
        if not self.count:
            return self.message
        return f"{self.message} ({self.count}{f'; rows {rows}' if self.rows else ''})"

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {
            "code": self.code,
            "message": self.message,
            "count": self.count,
            "rows": self.rows,
        }
