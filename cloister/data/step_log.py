"""The log beside a file that a command made: which file it was made from, how, and what changed.

A log holds the steps of all files on the way, the last one's own at the end. It counts private
records, so it is its owner's alone, like the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloister.data.clean.log import CLEANING, log_path
from cloister.data.outputs import sha256_of
from cloister.json_text import read_json

FORMAT = "cloister-data-log/1"
ENDING = ".log.json"
UNKNOWN = "it cannot be read, or is of another content; what was done is not known"
# The log of a cleaning names the rows that each rule changed: some megabytes of a million rows.
MOST_BYTES = 64 * 2**20
# Values of such a log: two for each range of rows.
MOST_VALUES = 8_000_000


def log_of(path: Path) -> Path:
    """Where the log of a file is."""
    return path.with_name(path.name + ENDING)


def steps_of(path: Path, sha256: str) -> list[dict[str, Any]]:
    """The steps by which a file was made; none where it has no log.

    Where a log lies beside the file that cannot be read, or is of another content, what was done
    is not known: then it is taken for something that couples units.

    Args:
        path: The file.
        sha256: Of its content.
    """
    own = _read(log_of(path))
    steps = own.get("steps") if own.get("format") == FORMAT else None
    if isinstance(steps, list) and steps and _made(steps[-1], sha256) and _are_tables(steps):
        return steps
    # What `cloister data clean` wrote is one step, in the words of its own log.
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
    """Whether a step that made a file looked at more than one unit; False where it has no log.

    Raises:
        OSError: The file cannot be read.
    """
    if not any(log.exists() for log in (log_of(path), log_path(path))):
        return False
    return any(bool(step.get("couples_units")) for step in steps_of(path, sha256_of(path)))


def steps_beside(path: Path) -> list[Any]:
    """The steps that each log beside a file names, of whatever content; nothing is checked."""
    own, cleaned = _read(log_of(path)), _read(log_path(path))
    return [own.get("steps"), cleaned.get("steps_before")]


def last_step(path: Path) -> dict[str, Any]:
    """The step that the log beside a file names last, whatever the file holds by now; or {}."""
    own = _read(log_of(path))
    steps = own.get("steps") if own.get("format") == FORMAT else None
    return steps[-1] if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else {}


def _read(log: Path) -> dict[str, Any]:
    """A log; empty where there is none that can be read."""
    try:
        if log.stat().st_size > MOST_BYTES:
            return {}
        found = read_json(log.read_bytes(), most_bytes=MOST_BYTES, most_values=MOST_VALUES)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _made(step: Any, sha256: str) -> bool:
    """Whether a step wrote the file of this content."""
    output = step.get("output") if isinstance(step, dict) else None
    return isinstance(output, dict) and output.get("sha256") == sha256
