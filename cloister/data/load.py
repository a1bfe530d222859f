"""Reads records from files, hub data sets and the generators, exactly as their source states them.

Training files are read row by row, without a cache or a copy: their records are
private. No type is inferred, and a path is one file, never a pattern.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from cloister.data.config import DataConfig
from cloister.data.formats import FileForm, form_of, listed_endings
from cloister.data.generated import check_generated, generated, is_generated
from cloister.data.record_schema import Reading
from cloister.data.records import Record, RecordKind
from cloister.data.source import RECIPE, DataOrigin
from cloister.data.unit_column import is_augmented
from cloister.data.values import Row
from cloister.errors import DataError
from cloister.files import why_no_file

Split = Literal["train", "validation", "test"]


def load(
    source: str,
    split: Split,
    kind: RecordKind,
    columns: DataConfig,
    *,
    sites: bool = False,
    asker: DataOrigin = RECIPE,
) -> list[Record]:
    """Reads all records of a source.

    Args:
        source: A file, a hub id, or the built-in generator's name.
        split: The split of a hub data set or of the generator; a file is one split. Only training
            records need a person: scores on public records release nothing private.
        kind: The kind of record that the task reads.
        columns: Column names.
        sites: Whether each training record must name its site, as `columns.site`; else none does.
        asker: Where the user names the source and its columns, for messages.

    Raises:
        DataError: The source is missing, damaged, empty, or a row lacks what the task needs.
        NetworkError: The hub cannot be reached.
    """
    if is_generated(source):
        return generated(source, kind, train=split == "train")
    path = _path(source)
    reading = _reading(path, split, kind, columns, sites, asker)
    try:
        if _is_file_name(source, path):
            form = columns.form(source)
            rows = file_rows(path, split, reading.columns_read, asker, form)
            name = path.name
        else:
            key = asker.source(split)
            _refuse_folder(source, key)
            from cloister.data.hub import hub_rows  # `datasets` takes a second to load

            rows = hub_rows(source, split, reading.columns_read, key)
            name = f"{source} ({split})"
        records = [reading.record(row, name, number) for number, row in rows]
    except OSError as error:
        reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source}: cannot be read ({reason})") from error
    if not records:
        raise DataError(f"{source}: no records")
    return records


def first_record(
    source: str,
    split: Split,
    kind: RecordKind,
    columns: DataConfig,
    *,
    sites: bool = False,
    asker: DataOrigin = RECIPE,
) -> Record | None:
    """Reads the first record of a file, to refuse early a file that does not fit; see `load`.

    Returns:
        The record; None: the source is not a file on this machine, so nothing is known.

    Raises:
        DataError: The file is missing, damaged or empty, or its first row lacks what the task
            needs.
    """
    if is_generated(source):
        check_generated(source, kind)
        return None
    path = _path(source)
    if not _is_file_name(source, path):
        _refuse_folder(source, asker.source(split))
        return None
    reading = _reading(path, split, kind, columns, sites, asker)
    try:
        form = columns.form(source)
        for number, row in file_rows(path, split, reading.columns_read, asker, form):
            return reading.record(row, path.name, number)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error
    raise DataError(f"{source}: no records")


def _reading(
    path: Path, split: Split, kind: RecordKind, columns: DataConfig, sites: bool, asker: DataOrigin
) -> Reading:
    training = split == "train"
    return Reading(
        kind,
        columns,
        persons=training,
        sites=training and sites,
        asker=asker,
        augmented=training and is_augmented(path),
    )


def is_same_file(one: str, other: str) -> bool:
    """Returns whether two sources are the same file on this machine, by any path or link."""
    try:
        return _path(one).samefile(_path(other))
    except (OSError, ValueError):  # one is not a file here, or not a valid path
        return False


def _path(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # a file named ~name, where no user has that name
        return Path(source)


def _is_file_name(source: str, path: Path) -> bool:
    known = form_of(path) is not None
    return known or path.is_absolute() or source.startswith(".") or _is_no_folder(path)


def _refuse_folder(source: str, key: str) -> None:
    """Refuses a folder of this machine, which `datasets` would read and copy into its cache."""
    name = source.partition(":")[0]
    if os.path.exists(name):  # noqa: PTH110 - takes any name
        raise DataError(
            f"{name}: is a folder here; name a file in it as {key} (for the hub's data set "
            "of that name, run from another folder)"
        )


def _is_no_folder(path: Path) -> bool:
    """Returns whether a path exists (also a pipe or broken link) and is not a folder."""
    return os.path.lexists(path) and not os.path.isdir(path)  # noqa: PTH112 - takes any name


def file_rows(
    path: Path,
    split: Split,
    needed: tuple[str, ...],
    asker: DataOrigin = RECIPE,
    form: FileForm | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number as an editor counts them.

    Args:
        path: The file.
        split: The split that it is, for messages.
        needed: The columns that are used.
        asker: Where the user names the file, for messages.
        form: The file's form; absent: by its ending, with text in UTF-8.

    Raises:
        DataError: It is not a regular file, is damaged, or changed while it was read; also raised
            while the rows are read.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct {asker.source(split)}")
    form = form or form_of(path)
    if form is None:
        raise DataError(f"{path}: not one of {listed_endings()}; convert it")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: empty; give a file with at least one record")
    return _unchanged(path, _rows(path, needed, form))


def _rows(path: Path, needed: tuple[str, ...], form: FileForm) -> Iterator[tuple[int, Row]]:
    if form.kind == "csv":
        from cloister.data.csv_rows import csv_rows

        return csv_rows(path, form)
    if form.kind == "json":
        from cloister.data.json_rows import json_rows

        return json_rows(path, form)
    if form.kind == "conll":
        from cloister.data.conll_rows import conll_rows

        return conll_rows(path, form)
    if form.kind == "arrow":
        from cloister.data.arrow_file import arrow_rows  # loads pyarrow

        return arrow_rows(path, needed)
    from cloister.data.parquet_rows import parquet_rows  # loads pyarrow

    return parquet_rows(path, needed)


def _unchanged(path: Path, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Yields rows, then raises `DataError` if the file was changed or replaced meanwhile."""
    before = _identity(path)
    yield from rows
    if _identity(path) != before:
        raise DataError(
            f"{path}: changed while it was read; run the command again once it is complete"
        )


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
