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
    """The step of one command.

    Attributes:
        command: Its name: `scrub`, ….
        settings: Its options.
        counts: Counts of its changes; true counts of private records.
        couples_units: Whether its treatment of one unit's records may depend on another unit's. ε
            is then about the units of the written file, not of the file that was read.
    """

    command: str
    settings: Mapping[str, Any]
    counts: Mapping[str, Any]
    couples_units: bool = False


def check_no_log(out: Path) -> None:
    """Refuses a new file if the path of its log exists already.

    Raises:
        UsageError: The path exists.
    """
    log = log_of(out)
    if log.exists() or log.is_symlink():
        raise UsageError(f"--out: {log}, its log, exists already; give another file")


def write_step(source: Detected, out: Path, content: Path, step: DataStep) -> None:
    """Writes the log of a file that was made from another: the earlier steps, then this one.

    Args:
        source: The file that it was made from.
        out: The new file.
        content: The temporary file with its content, because `out` does not exist yet.
        step: This step.

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
    """Writes the log of a file that was not made from a file of records.

    Args:
        origin: Its source, as JSON values.
        out: The new file.
        content: The temporary file with its content, because `out` does not exist yet.
        step: This step.
        before: The steps that made the source.

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
    # A file's name may have bytes that are not characters; they are written as `?`.
    write_whole(log_of(out), text.encode("utf-8", "replace") + b"\n", FILE)


@contextmanager
def new_logged_file(out: Path) -> Iterator[tuple[RowWriter, Path]]:
    """Opens a writer for a new file that needs a log beside it; see `outputs.new_file`.

    Raises:
        UsageError: The path, or that of the log, exists already.
        BadFileError: The file cannot be written; no log is left then.
    """
    check_new(out)
    check_no_log(out)
    try:
        with new_file(out) as made:
            yield made
    except BaseException as error:
        if not os.path.lexists(out):  # a log without its file would be misleading
            log_of(out).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise bad_file(error) from error
        raise
