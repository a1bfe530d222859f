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

from cloister.data.detected import Detected
from cloister.data.outputs import sha256_of
from cloister.errors import UsageError
from cloister.files import write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE

FORMAT = "cloister-data-log/1"
ENDING = ".log.json"
# A log of a hundred steps with some hundred counts each.
MOST_BYTES = 2**20


@dataclass(frozen=True)
class Step:
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
    """The steps by which a file was made; none where it has no log, or the log is another file's.

    Args:
        path: The file.
        sha256: Of its content.
    """
    try:
        log = log_of(path)
        if log.stat().st_size > MOST_BYTES:
            return []
        found = read_json(log.read_bytes(), most_bytes=MOST_BYTES)
        steps = found["steps"] if found["format"] == FORMAT else []
        is_its = bool(steps) and steps[-1]["output"]["sha256"] == sha256
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return []
    return list(steps) if is_its else []


def check_no_log(out: Path) -> None:
    """Refuses a new file whose log's place is taken.

    Raises:
        UsageError: Something is there.
    """
    log = log_of(out)
    if log.exists() or log.is_symlink():
        raise UsageError(f"--out: {log}, its log, is there already; give another file")


def write_step(source: Detected, out: Path, content: Path, step: Step) -> None:
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
    text = json.dumps({"format": FORMAT, "steps": steps}, ensure_ascii=False, indent=1)
    write_whole(log_of(out), text.encode() + b"\n", FILE)
