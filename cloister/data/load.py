"""Records from files and hub data sets, through Hugging Face `datasets`.

Nothing read from a file is left in a cache: the records of a file are private, and a file that was
edited is read anew.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas
from datasets import ClassLabel, Dataset
from datasets.exceptions import DatasetsError, FileNotFoundDatasetsError
from httpx import HTTPError
from pandas.errors import EmptyDataError, ParserWarning

from cloister.data.config import FORMATS, SYNTHETIC, DataConfig
from cloister.data.records import Record, RecordKind
from cloister.data.schema import parse
from cloister.errors import DataError, NetworkError

Split = Literal["train", "validation", "test"]


def load(source: str, split: Split, kind: RecordKind, columns: DataConfig) -> list[Record]:
    """Reads all records of a source.

    Args:
        source: A file, a hub id, or the built-in generator's name.
        split: Which split of a hub data set or of the generator; a file is one split.
        kind: What the task reads.
        columns: Column names.

    Raises:
        DataError: The source is missing, damaged, empty, or a row lacks what the task needs.
        NetworkError: The hub cannot be reached.
    """
    if source == SYNTHETIC:
        if kind != "text":
            raise DataError(f"{SYNTHETIC} holds texts with labels; another task needs other data")
        from cloister.data.synthetic import hospital_notes

        notes = hospital_notes()
        return list(notes[0] if split == "train" else notes[1])
    path = Path(source).expanduser()
    known = path.suffix.lower() in FORMATS
    if known or path.is_absolute() or source.startswith(".") or path.is_file():
        rows, name = _read_file(path, split), path.name
        numbers = _line_numbers(path) if path.suffix.lower() == ".jsonl" else itertools.count(1)
    else:
        rows, name = _read_hub(source, split), f"{source} ({split})"
        numbers = itertools.count(1)
    records = [
        parse(row, kind, columns, f"{name}, row {number}")
        for number, row in zip(numbers, rows, strict=False)
    ]
    if not records:
        raise DataError(f"{source}: no records")
    return records


def _read_file(path: Path, split: Split) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; correct data.{split}")
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise DataError(f"{path}: not one of {', '.join(FORMATS)}; convert it")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: empty")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if form == "csv":
            return _read_csv(path)
        with _silent(), tempfile.TemporaryDirectory() as cache:
            table = datasets.load_dataset(
                form,
                data_files=str(path),
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
            )
            return _rows(table)
    except Exception as error:  # the readers raise whatever their parsers do, StopIteration too
        if "corresponds to no data" in str(error) or isinstance(error, EmptyDataError):
            raise DataError(f"{path}: no records") from error
        place = _bad_line(path) if path.suffix.lower() == ".jsonl" else None
        if place is not None:
            raise DataError(f"{path}, row {place}: no valid JSON object") from error
        cause = error.__cause__ or error
        reason = str(cause).strip() or type(cause).__name__
        raise DataError(f"{path}: cannot be read ({reason.splitlines()[0]})") from error


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Values as they are written: a label `NA` or a person `007` stays what it is.

    `datasets` reads CSV with pandas too, but leaves the file open and its warnings aside.
    """
    with warnings.catch_warnings():
        # Rows with one value too many (an unquoted comma) would otherwise shift or be cut.
        warnings.simplefilter("error", ParserWarning)
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return rows


def _bad_line(path: Path) -> int | None:
    """The first line that is no JSON object, from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip() and not isinstance(json.loads(line), dict):
                    return number
            except ValueError:
                return number
    return None


def _line_numbers(path: Path) -> Iterator[int]:
    """Lines of a JSONL file that hold a row, from 1: a blank one is no row but counts as a line."""
    with path.open("rb") as file:
        yield from (number for number, line in enumerate(file, 1) if line.strip())


def _read_hub(source: str, split: Split) -> list[dict[str, Any]]:
    name, _, config = source.partition(":")
    try:
        with _silent():
            table = datasets.load_dataset(name, config or None, split=split)
    except FileNotFoundDatasetsError as error:
        raise DataError(
            f"{source}: no file here, and no data set on the hub; correct data.{split}"
        ) from error
    except (OSError, HTTPError) as error:
        raise NetworkError(
            f"{source}: no file of that name, and the hub cannot be reached to look for a data "
            f"set; give a file as data.{split}"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise DataError(f"{source}: {reason.splitlines()[0]}") from error
    return _rows(table)


def _rows(table: Dataset) -> list[dict[str, Any]]:
    """Rows with class ids turned into their names."""
    for column, feature in dict(table.features).items():
        inner = getattr(feature, "feature", None)
        names = next((f for f in (feature, inner) if isinstance(f, ClassLabel)), None)
        if names is not None:
            values = [
                [_class_name(names, i) for i in value]
                if isinstance(value, list)
                else _class_name(names, value)
                for value in table[column]
            ]
            table = table.remove_columns(column).add_column(column, values)
    rows: list[dict[str, Any]] = table.to_list()
    return rows


def _class_name(names: ClassLabel, index: int | None) -> str | None:
    """A class id's name; None where the id is missing, which the hub writes as -1."""
    return None if index is None or index < 0 else str(names.int2str(index))


@contextmanager
def _silent() -> Iterator[None]:
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    level = datasets.logging.get_verbosity()
    # Readers log an error before they raise it; the one that is raised is enough.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()
