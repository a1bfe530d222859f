"""Reads rows of a public data set on the Hugging Face hub, with `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import datasets
from datasets.exceptions import DatasetsError, FileNotFoundDatasetsError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from httpx import HTTPError

from cloister.data.arrow_rows import class_names, rows_of
from cloister.data.values import Row, Unusable
from cloister.errors import DataError, NetworkError

# `owner/name`, or `name` for the hub's oldest data sets, each of at most 96 characters (the hub's
# limit); then a configuration, without the characters that `datasets` forbids.
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?(:[^<>:/\\|?*]*)?", re.ASCII)
# Rows that are converted to Python values at a time.
_BATCH = 1024


def hub_rows(source: str, split: str, needed: Sequence[str], key: str) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a data set, each with its number, from 1.

    Args:
        source: `owner/name`, or `owner/name:config`.
        split: The split.
        needed: Columns to read; for the others only names and types are known.
        key: The field that names the source, for messages.

    Raises:
        DataError: The data set, split or configuration does not exist; or the name is also that of
            a folder on this machine.
        NetworkError: The hub cannot be reached.
    """
    name, _, config = source.partition(":")
    _refuse_local(source, name, key)
    try:
        with _silent():
            table = datasets.load_dataset(name, config or None, split=split)
    except FileNotFoundDatasetsError as error:
        raise DataError(
            f"{source}: neither a file here nor a data set on the hub; correct {key}"
        ) from error
    except (OSError, HTTPError) as error:
        raise NetworkError(
            f"{source}: no such file, and the hub cannot be reached to look for a data set of that "
            f"name; give a file as {key}"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise DataError(f"{source}: {reason.splitlines()[0]}") from error
    yield from _rows(table, needed, source)


def _refuse_local(source: str, name: str, key: str) -> None:
    """Refuses names that `datasets` would read from this machine and copy into its cache."""
    # A name such as `csv` is a reader of `datasets`, which would read files of the current folder.
    if not _ID.fullmatch(source) or name in _PACKAGED_DATASETS_MODULES:
        raise DataError(
            f"{source}: no such file, and not the name of a data set on the hub (owner/name); "
            f"correct {key}"
        )


def _rows(table: datasets.Dataset, needed: Sequence[str], source: str) -> Iterator[tuple[int, Row]]:
    columns = [name for name in dict.fromkeys(needed) if name in table.column_names]
    others: Row = {
        name: Unusable("a column that is not read")
        for name in table.column_names
        if name not in columns
    }
    names = class_names(table.features.to_dict(), source)
    if not columns and len(table):  # one row, so that a message can list the columns
        yield 1, others
        return
    exact = table.select_columns(columns).with_format("arrow")
    for start in range(0, len(table), _BATCH):
        for batch in exact[start : start + _BATCH].combine_chunks().to_batches():
            for number, row in enumerate(rows_of(batch, names), start + 1):
                yield number, {**others, **row}


@contextmanager
def _silent() -> Iterator[None]:
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    level = datasets.logging.get_verbosity()
    # Readers log an error before they raise it; the raised one is enough.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()
