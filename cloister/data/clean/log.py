"""The log of a cleaning: the rows that each rule changed or left out, and whether units couple.

It is written beside the output as `OUTPUT.cleaning.json`, readable by its owner only. It has
numbers of rows, and quotes nothing from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister import __version__

CLEANING = "cloister-cleaning"
VERSION = 1
# The log's note if a step looked at more than one unit.
COUPLED = (
    "a step looked at more than one unit, so epsilon is about the units of this file as it is, "
    "and not about those of the source: adding or removing one person there can change which "
    "records of others are here"
)


@dataclass
class RuleChanges:
    """The effect of one rule.

    Attributes:
        rule: Its name.
        what: What the rule does, in words.
        couples_units: Whether it looked at more than one record.
        changed: Rows of the source that it changed, as ranges of first and last.
        dropped: Rows that it left out, as ranges of first and last.
    """

    rule: str
    what: str
    couples_units: bool = False
    changed: list[list[int]] = field(default_factory=list)
    dropped: list[list[int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {
            "rule": self.rule,
            "what": self.what,
            "couples_units": self.couples_units,
            "changed": count(self.changed),
            "dropped": count(self.dropped),
            "changed_rows": self.changed,
            "dropped_rows": self.dropped,
        }


def put(ranges: list[list[int]], row: int) -> None:
    """Adds a row to ranges; rows must be added in ascending order."""
    if ranges and ranges[-1][1] == row - 1:
        ranges[-1][1] = row
    elif not ranges or ranges[-1][1] != row:
        ranges.append([row, row])


def count(ranges: list[list[int]]) -> int:
    """Returns the number of rows in ranges."""
    return sum(last - first + 1 for first, last in ranges)


@dataclass(frozen=True)
class CleaningLog:
    """The whole log of a cleaning.

    Attributes:
        source: The file that was read: its name, size, SHA-256, rows, and how it is written.
        output: The file that was written: its name, size, SHA-256 and rows.
        columns: Columns of the source by role.
        guessed: The roles that the caller did not give.
        left_out: Columns of the source that are not in the output.
        entries: The effect of each rule.
        earlier: The steps that made the source, from the log beside it.
    """

    source: dict[str, Any]
    output: dict[str, Any]
    columns: dict[str, str]
    guessed: tuple[str, ...]
    left_out: list[str]
    entries: list[RuleChanges]
    earlier: Sequence[Mapping[str, Any]] = ()

    @property
    def couples_units(self) -> bool:
        """Returns whether a step on the way to the output looked at more than one unit."""
        before = any(bool(step.get("couples_units")) for step in self.earlier)
        return before or any(entry.couples_units for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """Returns the log as JSON values."""
        return {
            "format": CLEANING,
            "version": VERSION,
            "cloister": __version__,
            **({"steps_before": list(self.earlier)} if self.earlier else {}),
            "source": self.source,
            "output": self.output,
            "columns": self.columns,
            "guessed": list(self.guessed),
            "columns_left_out": self.left_out,
            "couples_units": self.couples_units,
            **({"epsilon": COUPLED} if self.couples_units else {}),
            "rules": [entry.to_json() for entry in self.entries],
        }


def log_path(output: Path) -> Path:
    """Returns the path of an output's log."""
    return output.with_name(f"{output.name}.cleaning.json")
