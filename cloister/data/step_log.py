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

from cloister.data.clean.log import COUPLED
from cloister.data.detected import Detected
from cloister.data.outputs import sha256_of
from cloister.data.steps import FORMAT, log_of, steps_of
from cloister.errors import UsageError
from cloister.files import write_whole
from cloister.owner_only import FILE


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
