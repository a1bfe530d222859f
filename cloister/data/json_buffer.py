"""Reads JSON from a file piece by piece, with every number digit for digit as it is written.

The standard library's scanner is set to keep the spelling of numbers (`parse_int`, `parse_float`),
so that no identifier of twenty digits becomes a float, and to return each object as a list of
pairs, so that duplicate keys are found.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from typing import BinaryIO, cast

from cloister.data.values import MOST_ROW_BYTES, Number, Row, Value, shown
from cloister.errors import DataError

WHITESPACE = " \t\n\r"  # RFC 8259, section 2
_BLANKS = re.compile(f"[{WHITESPACE}]+")
# Deepest nesting of lists and objects: conversations with parts of text have 5 levels. Functions
# that read or write a row recurse once per level, and Python's limit is 1,000.
MOST_DEPTH = 100
REMEDY = "correct it, or write the file again"
CHUNK = 2**20  # bytes read at a time: rows are rarely longer


class _RepeatedKeyError(Exception):
    """A duplicate key in an object."""


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    row = dict(pairs)
    if len(row) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return row


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=Number
)


def object_at(text: str, start: int, where: str) -> tuple[Row, int]:
    """Parses the object that begins at `start`; returns it and the index after it.

    Raises:
        DataError: It has a duplicate key, is nested deeper than `MOST_DEPTH`, or is another value.
        json.JSONDecodeError: There is no JSON value, or only the beginning of one.
    """
    value, end = value_at(text, start, where)
    if not isinstance(value, dict):
        raise DataError(f"{where}: no valid JSON object (one in braces is needed); {REMEDY}")
    return value, end


def value_at(text: str, start: int, where: str) -> tuple[Value, int]:
    """Parses the value that begins at `start`; returns it and the index after it."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except _RepeatedKeyError as error:
        raise DataError(f"{where}: duplicate key {shown(str(error))!r}; remove one") from error
    except RecursionError as error:
        raise DataError(
            f"{where}: no valid JSON object (nested too deep); flatten its lists and objects"
        ) from error
    if text.count("[", start, end) + text.count("{", start, end) > MOST_DEPTH and _is_deep(value):
        raise DataError(
            f"{where}: lists and objects nested more than {MOST_DEPTH} deep; flatten them"
        )
    return value, end


def _is_deep(value: Value) -> bool:
    """Returns whether lists and objects are nested more than `MOST_DEPTH` deep."""
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


def reason_of(error: json.JSONDecodeError) -> str:
    """Returns what the parser expected; its message never quotes what it found."""
    return error.msg.strip().removesuffix(" at").rstrip(":")


class JsonBuffer:
    """The text of a file, read in chunks; characters that were parsed are dropped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Bytes that are not UTF-8 become lone surrogates, so that the row with the error is known.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text, self.place = "", 0
        self.taken = 0  # characters of the values that were taken

    def more(self) -> bool:
        """Reads a chunk; returns False at the file's end."""
        chunk = self._file.read(CHUNK)
        decoded = self._decoder.decode(chunk, final=not chunk)
        self.text, self.place = self.text[self.place :] + decoded, 0
        return bool(chunk)

    def next(self) -> str:
        """Returns the next character that is not white space, without taking it, or ""."""
        while True:
            match = _BLANKS.match(self.text, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more() and not self.text:
                return ""

    def value(self, where: str) -> Value:
        """Parses and takes the next value, after white space.

        Args:
            where: The file and row, for messages.

        Raises:
            DataError: There is no value within `MOST_ROW_BYTES`, or it is not UTF-8; see
                `object_at`.
        """
        self.next()
        while True:
            try:
                value, end = value_at(self.text, self.place, where)
                # A number at the end of the chunk may continue in the next one.
                if end == len(self.text) and isinstance(value, Number) and self.more():
                    continue
            except json.JSONDecodeError as error:
                if len(self.text) - self.place > MOST_ROW_BYTES:
                    raise DataError(
                        f"{where}: no valid JSON object within {MOST_ROW_BYTES >> 20} MiB, the "
                        "most that a row may hold; correct or split it"
                    ) from error
                if self.more():
                    continue
                raise DataError(
                    f"{where}: no valid JSON object ({reason_of(error)}); {REMEDY}"
                ) from error
            try:
                self.text[self.place : end].encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{where}: not UTF-8; save the file as UTF-8") from error
            self.taken += end - self.place
            self.place = end
            return value
