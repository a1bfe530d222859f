"""The hash of a whole released adapter, which certificates name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.canonical import canonical
from cloister.errors import BadFileError
from cloister.json_text import read_json

# Most bytes of cloister.json: 5,000 labels of a hundred bytes each, and the same again.
MOST_TOLD = 2**20
# The card is for readers and may be edited; no certificate covers it.
UNCOVERED = "README.md"


@dataclass(frozen=True)
class Hashed:
    """A file's hash, without its content.

    Attributes:
        sha256: In hex.
    """

    sha256: str


def adapter_files(folder: Path) -> dict[str, bytes]:
    """Returns a released adapter's files by name, without its card.

    Raises:
        BadFileError: The folder has no adapter of ours, or has something that is not a file.
    """
    if not (folder / "cloister.json").is_file():
        raise BadFileError(
            f"{folder}: no adapter here (cloister.json is missing); give a finished run's adapter/"
        )
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name == UNCOVERED:
            continue
        if not path.is_file() or path.is_symlink():
            raise BadFileError(f"{path}: an adapter's folder holds plain files only; remove it")
        files[path.name] = path.read_bytes()
    return files


def adapter_sha256(files: Mapping[str, bytes | Hashed]) -> str:
    """SHA-256, in hex, of the canonical JSON of every file's name and SHA-256 in hex."""
    hashes = {
        name: content.sha256 if isinstance(content, Hashed) else hashlib.sha256(content).hexdigest()
        for name, content in files.items()
    }
    return hashlib.sha256(canonical(hashes)).hexdigest()


def base_sha256(files: Mapping[str, bytes | Hashed]) -> str:
    """SHA-256 of the base's weights, as `cloister.json` among the files states it.

    Raises:
        BadFileError: The files do not state it.
    """
    try:
        content = files["cloister.json"]
        assert isinstance(content, bytes)
        return str(read_json(content, most_bytes=MOST_TOLD)["model"]["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFileError("cloister.json names no base model; it is damaged") from error
