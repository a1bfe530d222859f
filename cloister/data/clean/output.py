"""Writes a new file of records that appears only once it is complete, for its owner only."""

from __future__ import annotations

import gzip
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from cloister.data.csv_rows import csv_line
from cloister.data.formats import FileForm, form_of
from cloister.data.outputs import check_place
from cloister.data.values import Number, Value
from cloister.errors import UsageError
from cloister.files import sync_folder
from cloister.owner_only import FILE


def output_form(path: Path) -> FileForm:
    """Returns the form in which a file is written, from its ending.

    Raises:
        UsageError: No file can be written with this ending.
    """
    form = form_of(path)
    if form is None or form.kind not in ("json", "csv") or ".json" in path.suffixes:
        raise UsageError(
            f"--out {path}: no file can be written with this ending; give .jsonl, .csv or .tsv, or "
            "one of them with .gz"
        )
    return form


class NewFile:
    """A file that is written under a temporary name, and moved to its path once it is complete.

    Use it as a context manager; without `publish` no file is left.

    Args:
        path: The final path, which must not exist.
        columns: The columns of a CSV or TSV, in order.

    Raises:
        UsageError: The path exists already.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._form, self._path, self._columns = output_form(path), path, columns
        self.temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        check_place(path)

    def __enter__(self) -> NewFile:
        # O_EXCL with a random name: never follow a symlink that another user planted there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._raw = os.fdopen(os.open(self.temporary, flags, FILE), "wb")
        inner: IO[bytes] = self._raw
        if self._form.is_gzip:  # no time, no name: the same records give the same bytes
            made = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
            inner = cast(IO[bytes], made)
        self._text = io.TextIOWrapper(inner, encoding="utf-8", newline="")
        if self._form.kind == "csv":
            try:
                self._write_cells(self._columns)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, _: object = None, error: object = None, __: object = None) -> None:
        if isinstance(error, OSError) and error.filename is None:  # e.g. of a full disk
            error.filename = str(self._path)
        # On a full disk closing fails again; the file is deleted, so its unwritten rest does not
        # matter.
        with suppress(OSError):
            self._text.close()
        with suppress(OSError):
            self._raw.close()
        self.temporary.unlink(missing_ok=True)

    def _write_cells(self, cells: Sequence[str]) -> None:
        try:
            line = csv_line(cells, self._form.separator)
        except ValueError as error:
            raise UsageError(f"a row {error}") from error
        self._text.write(line)

    def write(self, row: Mapping[str, Value]) -> None:
        """Writes one row in the file's form.

        Args:
            row: Values by column; for a CSV only texts, numbers, true and false.
        """
        if self._form.kind == "csv":
            self._write_cells([_cell(row.get(name)) for name in self._columns])
        else:
            self._text.write(f"{_json(row)}\n")

    def close(self) -> None:
        """Ends the file and syncs it to disk; only `publish` may be called after this."""
        self._text.close()  # closes the gzip stream too, but not the file under it
        self._raw.close()
        descriptor = os.open(self.temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self) -> None:
        """Moves the file to its final path.

        Raises:
            UsageError: The path exists by now.
        """
        check_place(self._path)
        self.temporary.replace(self._path)
        sync_folder(self._path.parent)


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Number(literal):
            return literal
    raise UsageError(
        "a list or an object cannot be a cell of a CSV; give --out a name that ends in .jsonl"
    )


def _json(value: Value) -> str:
    """Returns a value as JSON, each number digit for digit as it was read."""
    match value:
        case Number(literal):
            return literal
        case Mapping():
            pairs = (f"{json.dumps(k, ensure_ascii=False)}: {_json(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        case str() | bool() | None:
            return json.dumps(value, ensure_ascii=False)
        case Sequence():
            return f"[{', '.join(map(_json, value))}]"
    raise TypeError(type(value).__name__)
