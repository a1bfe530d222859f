"""Writes a file of records together with the log that says how it was made (`step_log`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.clean.log import COUPLED
from cloister.data.detected import Detected
from cloister.data.outputs import RowWriter, check_new, new_file, sha256_of
from cloister.data.step_log import FORMAT, log_of, steps_of
from cloister.errors import UsageError
from cloister.files import bad_file, write_whole
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
    """Writes the log of a file that was made of another: the steps before, and the last one.

    Args:
        source: What it was made from.
        out: The new file.
        content: Where its content lies, as long as `out` is not there.
        step: What was done.

    Raises:
        OSError: A file cannot be read or written.
    """
    read = sha256_of(source.path)
    origin = {**source.to_json(), "sha256": read}
    write_first_step(origin, out, content, step, steps_of(source.path, read))


def write_first_step(
    origin: Mapping[str, Any],
    out: Path,
    content: Path,
    step: DataStep,
    before: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes the log of a file that was made of something else than a file of records.

    Args:
        origin: What it was made from, in a form for JSON.
        out: The new file.
        content: Where its content lies, as long as `out` is not there.
        step: What was done.
        before: The steps by which its origin was made.

    Raises:
        OSError: The log cannot be written.
    """
    last = {
        "command": step.command,
        "source": dict(origin),
        "output": {"name": out.name, "sha256": sha256_of(content)},
        "settings": dict(step.settings),
        "counts": dict(step.counts),
        "couples_units": step.couples_units,
    }
    steps = [*before, last]
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


@contextmanager
def new_logged_file(out: Path) -> Iterator[tuple[RowWriter, Path]]:
    """A writer for a new file whose log is written beside it; see `outputs.new_file`.

    Raises:
        UsageError: Something is there already, or at the log's place.
        BadFileError: It cannot be written; no log is left then.
    """
    check_new(out)
    check_no_log(out)
    try:
        with new_file(out) as made:
            yield made
    except BaseException as error:
        if not os.path.lexists(out):  # a log alone would be one of a file that never was
            log_of(out).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise bad_file(error) from error
        raise
