"""Rows checked against what the task needs; what is wrong is named with its file and row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from cloister.data.config import DataConfig
from cloister.data.records import (
    ChatRecord,
    Message,
    Record,
    RecordKind,
    Role,
    TextRecord,
    TokenRecord,
)
from cloister.data.values import Number, Row, Value, is_integer, kind_of, shown
from cloister.errors import DataError

_BIO = re.compile(r"O|[BI]-.+")
# What else helps where a column is missing.
_ELSE = {"site": ", choose another data.partition"}
# Columns of a row that a message lists; more would fill the terminal.
_LISTED = 12


class MixedColumnError(DataError):
    """A column of identifiers or labels holds texts and integers: no row of it can be trusted."""


@dataclass(frozen=True)
class Reading:
    """Makes records of one file's rows.

    Identifiers and labels are texts or integers, as they are written. A column holds one of the
    two: were both taken, `1` and `"1"` would become one person, or `7` and `"007"` two, without
    anybody noticing.

    Attributes:
        kind: What the task reads.
        columns: Column names.
        persons: Whether each row must name its person, where `columns` names a column for it.
        sites: Whether each row must name its site.
    """

    kind: RecordKind
    columns: DataConfig
    persons: bool
    sites: bool
    # By column: what its first value is, and in which row.
    _first: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns that are looked at."""
        columns = self.columns
        read = {
            "text": (columns.text, columns.label),
            "tokens": (columns.tokens, columns.tags),
            "messages": (columns.messages,),
        }[self.kind]
        if self.sites:
            read += (columns.site,)
        if self.persons and columns.person is not None:
            read += (columns.person,)
        return read

    def record(self, row: Row, name: str, number: int) -> Record:
        """Makes a record of a row.

        Args:
            row: Values by column.
            name: The file's, for messages.
            number: The row's.

        Raises:
            DataError: A column is missing, or its value cannot be used.
            MixedColumnError: A column mixes texts and integers.
        """
        where, columns = f"{name}, row {number}", self.columns
        site = person = None
        if self.sites:
            site = self._written(row, columns.site, "site", where, number)
        if self.persons and columns.person is not None:
            person = self._written(row, columns.person, "person", where, number)
        if self.kind == "tokens":
            return _tokens(row, columns, where, site, person)
        if self.kind == "messages":
            return _chat(row, columns, where, site, person)
        text = _value(row, columns.text, "text", where)
        if not isinstance(text, str):
            raise DataError(f"{where}: {columns.text} is {kind_of(text)}; text is needed")
        if not text.strip():
            raise DataError(f"{where}: {columns.text} is empty; a text is needed")
        label = self._written(row, columns.label, "label", where, number)
        return TextRecord(_whole(text, columns.text, where), label, site, person)

    def _written(self, row: Row, column: str, key: str, where: str, number: int) -> str:
        """An identifier or a label as it is written in the file."""
        value = _value(row, column, key, where)
        match value:
            case str():
                written, kind = _whole(value, column, where), "text"
            case Number(literal) if is_integer(literal):
                written, kind = literal, "an integer"
            case bool() if key == "label":
                written, kind = ("true" if value else "false"), "true or false"
            case _:
                number_shown = f" ({shown(value.written)})" if isinstance(value, Number) else ""
                raise DataError(
                    f"{where}: {column} is {kind_of(value)}{number_shown}; a {key} is text or an "
                    "integer, which are written in one way only: write it as text"
                )
        if not written:
            raise DataError(f"{where}: {column} is empty; every row needs its {key}")
        first, first_row = self._first.setdefault(column, (kind, number))
        if first != kind:
            raise MixedColumnError(
                f"{where}: {column} is {kind} here and {first} in row {first_row}; whether "
                "values of both kinds are the same cannot be known: write all as text"
            )
        return written


def _tokens(
    row: Row, columns: DataConfig, where: str, site: str | None, person: str | None
) -> TokenRecord:
    tokens = _words(row, columns.tokens, "tokens", where)
    tags = _words(row, columns.tags, "tags", where)
    if len(tokens) != len(tags):
        raise DataError(f"{where}: {len(tokens)} {columns.tokens} but {len(tags)} {columns.tags}")
    wrong = [tag for tag in tags if not _BIO.fullmatch(tag)]
    if wrong:
        raise DataError(f"{where}: tag {shown(wrong[0])!r} is not BIO (O, B-type or I-type)")
    return TokenRecord(tokens, tags, site, person)


def _words(row: Row, column: str, key: str, where: str) -> tuple[str, ...]:
    value = _value(row, column, key, where)
    if isinstance(value, str):
        raise DataError(
            f"{where}: {column} is text, not a list of words, which CSV cannot hold: "
            "use JSONL or Parquet"
        )
    words = value if isinstance(value, Sequence) else ()
    if not words or not all(isinstance(word, str) for word in words):
        raise DataError(f"{where}: {column} must be a list of words, and not empty")
    return tuple(_whole(cast(str, word), column, where) for word in words)


def _chat(
    row: Row, columns: DataConfig, where: str, site: str | None, person: str | None
) -> ChatRecord:
    turns = _value(row, columns.messages, "messages", where)
    if isinstance(turns, str) or not isinstance(turns, Sequence) or not turns:
        raise DataError(f"{where}: {columns.messages} must be a list of turns, and not empty")
    messages = []
    for number, turn in enumerate(turns, 1):
        role = turn.get("role") if isinstance(turn, dict) else None
        content = turn.get("content") if isinstance(turn, dict) else None
        if role not in get_args(Role) or not isinstance(content, str):
            raise DataError(
                f"{where}: turn {number} needs a role ({', '.join(get_args(Role))}) and a content"
            )
        messages.append(Message(cast(Role, role), _whole(content, columns.messages, where)))
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise DataError(f"{where}: no turn of the assistant, so there is nothing to learn")
    return ChatRecord(tuple(messages), site, person)


def _value(row: Row, column: str, key: str, where: str) -> Value:
    value = row.get(column)
    if value is None and column in row:
        raise DataError(
            f"{where}: {column} holds nothing (null); every row needs its {key}: correct the row"
        )
    if value is None:
        held = [shown(name) for name, other in row.items() if other is not None]
        found = ", ".join(held[:_LISTED]) + (", …" if len(held) > _LISTED else "")
        raise DataError(
            f"{where}: no column {column!r} (found: {found or 'none'}); "
            f"set data.{key} to the column's name{_ELSE.get(key, '')}, or correct the row"
        )
    return value


def _whole(text: str, column: str, where: str) -> str:
    """A text of whole characters, which tokenizers and files can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {column} has half of a surrogate pair (\\ud800 to \\udfff), which is no "
            "character; correct the row"
        ) from error
    return text
