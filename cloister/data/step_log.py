"""The log beside a file that a command made: which file it was made from, how, and what changed.

A log holds the steps of all files on the way, the last one's own at the end. It counts private
records, so it is its owner's alone, like the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.clean.log import CLEANING, COUPLED, log_path
from cloister.data.detected import Detected
from cloister.data.outputs import sha256_of
from cloister.errors import UsageError
from cloister.files import write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE

FORMAT = "cloister-data-log/1"
ENDING = ".log.json"
UNKNOWN = "it cannot be read, or is of another content; what was done is not known"
# The log of a cleaning names the rows that each rule changed: some megabytes of a million rows.
MOST_BYTES = 64 * 2**20
# Values of such a log: two for each range of rows.
MOST_VALUES = 8_000_000


@dataclass(frozen=True)
class DataStep:
    """What one command did.

    Attributes:
        command: Its name: `scrub`, ….
        settings: What it was told.
        counts: What it changed; true counts of private records.
        couples_units: Whether what it did with one unit's records may depend on another unit's. ε
            is then about the units of the written file, and not of the one that was read.
    """

    command: str
    settings: Mapping[str, Any]
    counts: Mapping[str, Any]
    couples_units: bool = False


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
    if isinstance(steps, list) and steps and _made(steps[-1], sha256):
        return steps
    # What `cloister data clean` wrote is one step, in the words of its own log.
    cleaned = _read(log_path(path))
    if cleaned.get("format") == CLEANING and _made(cleaned, sha256):
        before = cleaned.pop("steps_before", [])
        return [*(before if isinstance(before, list) else []), {"command": "clean", **cleaned}]
    if beside := [log.name for log in (log_of(path), log_path(path)) if log.exists()]:
        return [{"command": "unknown", "why": f"{beside[0]}: {UNKNOWN}", "couples_units": True}]
    return []


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


def check_no_log(out: Path) -> None:
    """Refuses a new file whose log's place is taken.

    Raises:
        UsageError: Something is there.
    """
    log = log_of(out)
    if log.exists() or log.is_symlink():
        raise UsageError(f"--out: {log}, its log, is there already; give another file")


def write_step(source: Detected, out: Path, content: Path, step: DataStep) -> None:
    """Writes the log of a file that was made: the steps before, and the one that made it.

    Args:
        source: What it was made from.
        out: The new file.
        content: Where its content lies, as long as `out` is not there.
        step: What was done.

    Raises:
        OSError: A file cannot be read or written.
    """
    read = sha256_of(source.path)
    last = {
        "command": step.command,
        "source": {**source.to_json(), "sha256": read},
        "output": {"name": out.name, "sha256": sha256_of(content)},
        "settings": dict(step.settings),
        "counts": dict(step.counts),
        "couples_units": step.couples_units,
    }
    steps = [*steps_of(source.path, read), last]
    coupled = any(bool(one.get("couples_units")) for one in steps)
    content_of_log = {
        "format": FORMAT,
        "couples_units": coupled,
        **({"epsilon": COUPLED} if coupled else {}),
        "steps": steps,
    }
    text = json.dumps(content_of_log, ensure_ascii=False, indent=1)
    # The name of a file may hold bytes that are no characters; they are written as `?`.
    write_whole(log_of(out), text.encode("utf-8", "replace") + b"\n", FILE)
