"""Fetches a run from a URL into a new folder of this machine, for reading.

What is at the URL may come from somebody else: every file is checked against the manifest, whose
paths, number and sizes are bounded (`copies.manifest`). The folder appears whole or not at all, and
is marked as a copy, so that no study is continued with its ledgers (`server.run_copy`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cloister.errors import BadFileError, CloisterError, NetworkError, UsageError
from cloister.files import bad_file, write_whole
from cloister.owner_only import FILE, private_folder
from cloister.server.run_copy import COPY
from cloister.server.run_directory import is_taken
from cloister.simulation.copies.manifest import CopiedFile, Manifest
from cloister.simulation.copies.remote import RunUrl
from cloister.staging import staging

_CHUNK = 2**20


def fetch(
    place: str, folder: Path, on_found: Callable[[Manifest], None] = lambda found: None
) -> Manifest:
    """Fetches a run.

    Args:
        place: Its URL.
        folder: A new folder, or an empty one.
        on_found: Is called before the first file is fetched.

    Returns:
        What the URL says about the run.

    Raises:
        UsageError: The folder holds something, or fsspec cannot open the URL.
        BadFileError: There is no run, a file is not the one that the manifest names, or the folder
            cannot be written.
        NetworkError: The URL cannot be read.

    Guarantees:
        Nothing is written outside of the folder and one that stands beside it meanwhile. Memory
        does not grow with the size of a file; of each no more bytes are read than the manifest
        names, and one to see that it ends.
    """
    folder = folder.absolute()
    try:
        if folder.is_symlink() or is_taken(folder):
            raise UsageError(f"{folder}: exists already and is not overwritten; name a new folder")
    except OSError as error:
        raise bad_file(error, "read") from error
    url = RunUrl.open(place)
    found = url.manifest()
    if found is None:
        raise BadFileError(
            f"{url.shown}: holds no run, or no round of it was copied yet; give the URL that "
            "cloister simulate had as --out"
        )
    try:
        with staging(folder, "fetched") as stage:
            _check_room(stage, found, url.shown)
            on_found(found)
            for path, file in found.files.items():
                _fetch_file(url, path, file, stage / path)
            write_whole(stage / COPY, json.dumps(_origin(url, found)).encode(), FILE)
            stage.rename(folder)
    except CloisterError:
        raise
    except OSError as error:
        raise bad_file(error, "fetched") from error
    return found


def _fetch_file(url: RunUrl, path: str, file: CopiedFile, to: Path) -> None:
    private_folder(to.parent)
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(to, flags, FILE), "wb") as written:
        for chunk in _chunks(url, file.place(path), file.size + 1):
            size += len(chunk)
            digest.update(chunk)
            written.write(chunk)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise BadFileError(
            f"{url.shown}/{file.place(path)}: not the file that the manifest names, so nothing is "
            "kept; if the run is going on, another round was copied meanwhile: try again"
        )


def _chunks(url: RunUrl, place: str, most: int) -> Iterator[bytes]:
    """Yields at most `most` bytes of a file at the URL."""
    try:
        kind = url.files.info(url.path(place))
        if kind.get("type") != "file" or kind.get("islink"):
            raise BadFileError(
                f"{url.shown}/{place}: is a link there, or not a file, so nothing is kept"
            )
        with url.files.open(url.path(place), "rb") as source:
            while most > 0 and (chunk := source.read(min(_CHUNK, most))):
                most -= len(chunk)
                yield bytes(chunk)
    except (GeneratorExit, CloisterError):
        raise
    except FileNotFoundError as error:
        raise BadFileError(
            f"{url.shown}/{place}: is missing there, so nothing is kept; if the run is going on, "
            "another round was copied meanwhile: try again"
        ) from error
    except Exception as error:  # each file system of fsspec raises errors of its own
        raise NetworkError(
            f"{url.shown}/{place}: cannot be read ({url.reason(error)}); try again"
        ) from error


def _check_room(stage: Path, found: Manifest, shown: str) -> None:
    free = shutil.disk_usage(stage).free
    if found.size > free:
        raise BadFileError(
            f"{shown}: its files have {found.size:,} bytes, and {stage.parent} has {free:,} free; "
            "make room, or name a folder on another disk"
        )


def _origin(url: RunUrl, found: Manifest) -> dict[str, object]:
    return {
        "url": url.shown,
        "writer": found.writer,
        "round": found.round,
        "finished": found.is_finished,
        "written": found.written,
    }
