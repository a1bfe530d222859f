"""Rows of a JSON file, one object a line or one array of objects, with every literal as written.

The standard library's scanner is told to keep numbers as they are spelled (`parse_int` and its
kin), so that no identifier of twenty digits becomes a float, and to give each object as its list
of pairs, so that a key that is given twice is seen.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from cloister.data.formats import FileForm
from cloister.data.lines import UTF8, open_text, text_lines
from cloister.data.values import MOST_ROW_BYTES, Number, Row, Value, shown
from cloister.errors import DataError

_WHITESPACE = " \t\n\r"  # RFC 8259, section 2
_BLANKS = re.compile(f"[{_WHITESPACE}]+")
# Lists and objects in each other: conversations with parts of text have 5. What looks at a row or
# writes it calls itself for each level, and Python allows 1,000 calls in each other.
MOST_DEPTH = 100
_CHUNK = 2**20  # bytes read at a time of an array: a row is seldom longer


class _RepeatedKeyError(Exception):
    """One object that has one key twice."""


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    row = dict(pairs)
    if len(row) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return row


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=Number
)


def json_rows(path: Path, form: FileForm = UTF8) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number: its line, or its place in the array.

    Args:
        path: JSON lines, or one array of objects: whichever it begins as.
        form: How its text is written.

    Raises:
        DataError: A row is no JSON object, has a key twice, or is too large.
        OSError: The file cannot be read.
    """
    with open_text(path, form) as file:
        first = b""
        while not first and (chunk := file.read(_CHUNK)):
            first = chunk.lstrip(_WHITESPACE.encode())[:1]
    return _elements(path, form) if first == b"[" else _lines(path, form)


def _lines(path: Path, form: FileForm) -> Iterator[tuple[int, Row]]:
    for number, line in text_lines(path, "row", form):
        start = len(line) - len(line.lstrip(_WHITESPACE))
        if start == len(line):
            continue
        where = f"{path.name}, row {number}"
        try:
            row, end = _object_at(line, start, where)
        except json.JSONDecodeError as error:
            place = f"{_reason(error)}, character {error.pos + 1}"
            raise DataError(f"{where}: no valid JSON object ({place})") from error
        if line[end:].strip(_WHITESPACE):
            raise DataError(f"{where}: no valid JSON object (something follows it in its line)")
        yield number, row


def _object_at(text: str, start: int, where: str) -> tuple[Row, int]:
    """The object that begins at `start`, and where it ends.

    Raises:
        DataError: It has a key twice, is nested deeper than `MOST_DEPTH`, or is another value.
        json.JSONDecodeError: There is none, or only a part of it.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except _RepeatedKeyError as error:
        raise DataError(
            f"{where}: the key {shown(str(error))!r} is given twice; which one is meant? Remove one"
        ) from error
    except RecursionError as error:
        raise DataError(f"{where}: no valid JSON object (nested too deep)") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: no valid JSON object (one in braces is needed)")
    if text.count("[", start, end) + text.count("{", start, end) > MOST_DEPTH and _is_deep(value):
        raise DataError(
            f"{where}: lists and objects more than {MOST_DEPTH} deep in each other; flatten them"
        )
    return value, end


def _is_deep(value: Value) -> bool:
    """Whether lists and objects are more than `MOST_DEPTH` deep in each other."""
    level: list[Value] = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else cast(list[Value], outer))
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _reason(error: json.JSONDecodeError) -> str:
    """What the parser looked for; it never says what it found."""
    return error.msg.strip().removesuffix(" at").rstrip(":")


class _Buffer:
    """Text of a file that is read in chunks, from the first character that is still needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # What is not UTF-8 stays visible as half of a surrogate pair, so that its row is known.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text, self.place = "", 0

    def more(self) -> bool:
        """Reads a chunk; false at the file's end."""
        chunk = self._file.read(_CHUNK)
        decoded = self._decoder.decode(chunk, final=not chunk)
        self.text, self.place = self.text[self.place :] + decoded, 0
        return bool(chunk)

    def next(self) -> str:
        """The next character that is no whitespace, which stays; empty at the end."""
        while True:
            match = _BLANKS.match(self.text, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more() and not self.text:
                return ""


def _elements(path: Path, form: FileForm) -> Iterator[tuple[int, Row]]:
    with open_text(path, form) as file:
        buffer, number = _Buffer(file), 0
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
                raise DataError(f"{where}: neither , nor ] follows it, so the array is damaged")
            if separator == "]":
                buffer.place += 1
        if buffer.next():
            raise DataError(f"{path}: something follows the array's closing ]; correct the file")


def _element(buffer: _Buffer, where: str) -> Row:
    if buffer.next() != "{":
        raise DataError(f"{where}: no valid JSON object (one in braces is needed)")
    while True:
        try:
            row, end = _object_at(buffer.text, buffer.place, where)
        except json.JSONDecodeError as error:
            if len(buffer.text) - buffer.place > MOST_ROW_BYTES:
                raise DataError(
                    f"{where}: no valid JSON object within {MOST_ROW_BYTES >> 20} MiB, the most "
                    "that a row may hold"
                ) from error
            if buffer.more():
                continue
            raise DataError(f"{where}: no valid JSON object ({_reason(error)})") from error
        try:
            buffer.text[buffer.place : end].encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: not UTF-8; save the file as UTF-8") from error
        buffer.place = end
        return row
