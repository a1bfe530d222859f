"""Writes a report's folder (JSON and page), complete or not at all, readable by its owner only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister.errors import UsageError
from cloister.files import bad_file, write_whole
from cloister.owner_only import FILE, FOLDER
from cloister.staging import staging

PAGE = "index.html"


def check_free(out: Path) -> None:
    """Refuses a folder that exists already.

    Raises:
        UsageError: It exists.
    """
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already and is not overwritten; choose another --out")


def write_report(out: Path, files: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Writes a folder of texts and JSON documents.

    Args:
        out: The folder, which must not exist.
        files: By file name, a text, or an object that is written as JSON.

    Raises:
        UsageError: Another process writes the same folder.
        BadFileError: The folder cannot be written; no part of it is left then.
    """
    with staging(out, "written") as stage:
        inside = stage / "report"
        inside.mkdir(mode=FOLDER)
        for name, content in files.items():
            text = content if isinstance(content, str) else _json(content)
            write_whole(inside / name, text.encode(), FILE)
        try:
            inside.rename(out)
        except OSError as error:
            raise bad_file(error, "written") from error


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
