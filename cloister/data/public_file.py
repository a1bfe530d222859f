"""Hashes and compares a public file that every party needs: a catalogue of items, or passages.

Each party has its own copy, under any path. A recipe names the file and its SHA-256. The hash is
part of the study's digest, so all parties compute with the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cloister.errors import DataError
from cloister.files import bad_file, open_file, why_no_file


def file_sha256(path: Path, key: str) -> str:
    """Returns the SHA-256 of a public file, in hex.

    Args:
        path: The file.
        key: The key that names the file, for messages, such as `task.items`.

    Raises:
        DataError: The path is not a regular file.
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
    """Returns whether a text is a SHA-256 in its only spelling: 64 lower-case hex digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def check_sha256(found: str, expected: str | None, source: str, key: str) -> None:
    """Refuses a public file that is not the study's.

    Args:
        found: Its SHA-256.
        expected: The study's SHA-256; None: any file is accepted, as in a simulation without one.
        source: The file, for messages.
        key: The key that names the file, such as `task.items`.

    Raises:
        DataError: They differ.
    """
    if expected is not None and found != expected:
        raise DataError(
            f"{key}: {source} has SHA-256 {found}, but the study needs {expected}; get the study's "
            "file from the coordinator, or correct the recipe"
        )
