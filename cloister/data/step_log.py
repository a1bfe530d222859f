"""Reads the log beside a file that a command made: its source, the command, and what changed.

A log has the steps of all files from the first source on; the file's own step is the last. It has
counts of private records, so only its owner may read it, like the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloister.data.clean.log import CLEANING, log_path
from cloister.data.outputs import sha256_of
from cloister.json_text import read_json

FORMAT = "cloister-data-log/1"
ENDING = ".log.json"
UNKNOWN = "it cannot be read, or is about another content; the steps are not known"
# Largest log in bytes: that of a cleaning lists the rows that each rule changed, some megabytes for
# a million rows.
MOST_BYTES = 64 * 2**20
# Most JSON values of such a log: two for each range of rows.
MOST_VALUES = 8_000_000


def log_of(path: Path) -> Path:
    """Returns the path of a file's log."""
    return path.with_name(path.name + ENDING)


def steps_of(path: Path, sha256: str) -> list[dict[str, Any]]:
    """Returns the steps that made a file; empty: it has no log.

    If the log beside the file cannot be read, or is of another content, the steps are unknown: they
    are then treated as coupling units.

    Args:
        path: The file.
        sha256: SHA-256 of its content.
    """
    own = _read(log_of(path))
    steps = own.get("steps") if own.get("format") == FORMAT else None
    if isinstance(steps, list) and steps and _made(steps[-1], sha256) and _are_tables(steps):
        return steps
    # `cloister data clean` writes a log of another form: it becomes one step.
    cleaned = _read(log_path(path))
    if cleaned.get("format") == CLEANING and _made(cleaned, sha256):
        before = cleaned.pop("steps_before", [])
        if isinstance(before, list) and _are_tables(before):
            return [*before, {"command": "clean", **cleaned}]
    if beside := [log.name for log in (log_of(path), log_path(path)) if log.exists()]:
        return [{"command": "unknown", "why": f"{beside[0]}: {UNKNOWN}", "couples_units": True}]
    return []


def _are_tables(steps: list[Any]) -> bool:
    return all(isinstance(step, dict) for step in steps)


def couples_units(path: Path) -> bool:
    """Returns whether a step that made a file looked at more than one unit; False without a log.

    Raises:
        OSError: The file cannot be read.
    """
    if not any(log.exists() for log in (log_of(path), log_path(path))):
        return False
    return any(bool(step.get("couples_units")) for step in steps_of(path, sha256_of(path)))


def steps_beside(path: Path) -> list[Any]:
    """Returns the steps in each log beside a file, without checking that they made its content."""
    own, cleaned = _read(log_of(path)), _read(log_path(path))
    return [own.get("steps"), cleaned.get("steps_before")]


def last_step(path: Path) -> dict[str, Any]:
    """Returns the last step in the log beside a file, without checking the file; {}: no log."""
    own = _read(log_of(path))
    steps = own.get("steps") if own.get("format") == FORMAT else None
    return steps[-1] if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else {}


def _read(log: Path) -> dict[str, Any]:
    """Returns a log; {}: there is none that can be read."""
    try:
        if log.stat().st_size > MOST_BYTES:
            return {}
        found = read_json(log.read_bytes(), most_bytes=MOST_BYTES, most_values=MOST_VALUES)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _made(step: Any, sha256: str) -> bool:
    """Returns whether a step wrote a file with this content."""
    output = step.get("output") if isinstance(step, dict) else None
    return isinstance(output, dict) and output.get("sha256") == sha256
