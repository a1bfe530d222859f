"""Reads rows of a JSON file: one object per line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from cloister.data.formats import FileForm
from cloister.data.json_buffer import CHUNK, REMEDY, WHITESPACE, JsonBuffer, object_at, reason_of
from cloister.data.lines import UTF8, open_text, text_lines
from cloister.data.values import Row
from cloister.errors import DataError


def json_rows(path: Path, form: FileForm = UTF8) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number: its line, or its place in the array.

    Args:
        path: JSON lines, or one array of objects; its first character decides.
        form: Its encoding and compression.

    Raises:
        DataError: A row is not a JSON object, has a duplicate key, or is too large.
        OSError: The file cannot be read.
    """
    with open_text(path, form) as file:
        first = b""
        while not first and (chunk := file.read(CHUNK)):
            first = chunk.lstrip(WHITESPACE.encode())[:1]
    return _elements(path, form) if first == b"[" else _lines(path, form)


def _lines(path: Path, form: FileForm) -> Iterator[tuple[int, Row]]:
    for number, line in text_lines(path, "row", form):
        start = len(line) - len(line.lstrip(WHITESPACE))
        if start == len(line):
            continue
        where = f"{path.name}, row {number}"
        try:
            row, end = object_at(line, start, where)
        except json.JSONDecodeError as error:
            place = f"{reason_of(error)}, character {error.pos + 1}"
            raise DataError(f"{where}: no valid JSON object ({place}); {REMEDY}") from error
        if line[end:].strip(WHITESPACE):
            raise DataError(
                f"{where}: no valid JSON object (more text follows it in its line); begin a new "
                "line after each object"
            )
        yield number, row


def _elements(path: Path, form: FileForm) -> Iterator[tuple[int, Row]]:
    with open_text(path, form) as file:
        buffer, number = JsonBuffer(file), 0
        buffer.next()
        separator = "["
        while separator != "]":
            buffer.place += 1
            number += 1
            if number == 1 and buffer.next() == "]":
                buffer.place += 1
                break
            where = f"{path.name}, row {number}"
            yield number, _element(buffer, where)
            separator = buffer.next()
            if separator not in (",", "]"):
                raise DataError(f"{where}: no , or ] follows it: the array is damaged; {REMEDY}")
            if separator == "]":
                buffer.place += 1
        if buffer.next():
            raise DataError(f"{path}: more text follows the array's closing ]; correct the file")


def _element(buffer: JsonBuffer, where: str) -> Row:
    if buffer.next() != "{":
        raise DataError(f"{where}: no valid JSON object (one in braces is needed); {REMEDY}")
    return cast(Row, buffer.value(where))
