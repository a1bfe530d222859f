"""A public file that a task needs at every party, as a catalogue of items or passages.

Each party has its own copy. A recipe names the file and its SHA-256; the hash is part of the
study's digest, so that everybody computes with the same bytes, wherever the copy lies.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cloister.errors import DataError
from cloister.files import bad_file, open_file, why_no_file


def file_sha256(path: Path, key: str) -> str:
    """SHA-256 of a public file, in hex.

    Args:
        path: The file.
        key: Where it is named, for messages, as `task.items`.

    Raises:
        DataError: There is no such regular file.
        BadFileError: It cannot be read.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{key}: {path}: {why}; give the public file")
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise bad_file(error, "read") from error


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 as it is written here: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def check_sha256(found: str, expected: str | None, source: str, key: str) -> None:
    """Refuses a public file that is not the study's.

    Args:
        found: Its SHA-256.
        expected: The study's; None: any will do, as in a simulation that states none.
        source: The file, for messages.
        key: Where it is named, as `task.items`.

    Raises:
        DataError: They differ.
    """
    if expected is not None and found != expected:
        raise DataError(
            f"{key}: {source} has SHA-256 {found}, the study needs {expected}; get the study's "
            "file from the coordinator, or correct the recipe if it is wrong"
        )
