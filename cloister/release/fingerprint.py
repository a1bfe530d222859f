"""One hash for a whole released adapter: what certificates name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cloister.errors import BadFileError
from cloister.privacy.chain import canonical

# The card is for readers and may be edited; no certificate speaks of it.
UNCOVERED = "README.md"


def adapter_files(folder: Path) -> dict[str, bytes]:
    """A released adapter's files by name, but for its card.

    Raises:
        BadFileError: The folder holds no adapter of ours, or something that is no file.
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


def adapter_sha256(files: Mapping[str, bytes]) -> str:
    """SHA-256, in hex, of the canonical JSON of every file's name and SHA-256 in hex."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(canonical(hashes)).hexdigest()


def base_sha256(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the weights of the base that an adapter says it was trained on.

    Raises:
        BadFileError: It does not say.
    """
    try:
        return str(json.loads(files["cloister.json"])["model"]["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadFileError("the adapter's cloister.json names no base model; it is damaged") from (
            error
        )
