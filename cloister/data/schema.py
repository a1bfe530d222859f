"""Rows checked against what the task needs; what is wrong is named with its file and row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, get_args

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
from cloister.errors import DataError

_BIO = re.compile(r"O|[BI]-.+")


def parse(row: Mapping[str, Any], kind: RecordKind, columns: DataConfig, where: str) -> Record:
    """Makes a record of a row.

    Args:
        row: Values by column.
        kind: What the task reads.
        columns: Column names.
        where: The row's place, for messages (`train.jsonl, row 7`).

    Raises:
        DataError: A column is missing, or its value cannot be used.
    """
    site = _name(row, columns.site, where, required=False)
    person = None if columns.person is None else _name(row, columns.person, where, required=True)
    if kind == "text":
        text = _value(row, columns.text, "text", where)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {columns.text} is empty or no text")
        label = _value(row, columns.label, "label", where)
        if not isinstance(label, str | int | bool) or label == "":
            raise DataError(f"{where}: {columns.label} is {label!r}; a label is needed")
        return TextRecord(text, str(label), site, person)
    if kind == "tokens":
        return _tokens(row, columns, where, site, person)
    return _chat(row, columns, where, site, person)


def _tokens(
    row: Mapping[str, Any], columns: DataConfig, where: str, site: str | None, person: str | None
) -> TokenRecord:
    tokens = _value(row, columns.tokens, "tokens", where)
    tags = _value(row, columns.tags, "tags", where)
    for name, value in ((columns.tokens, tokens), (columns.tags, tags)):
        if isinstance(value, str):
            raise DataError(
                f"{where}: {name} is text, not a list of words, which CSV cannot hold: "
                "use JSONL or Parquet"
            )
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise DataError(f"{where}: {name} must be a list of words, and not empty")
    if len(tokens) != len(tags):
        raise DataError(f"{where}: {len(tokens)} {columns.tokens} but {len(tags)} {columns.tags}")
    wrong = [tag for tag in tags if not _BIO.fullmatch(tag)]
    if wrong:
        raise DataError(f"{where}: tag {wrong[0]!r} is not BIO (O, B-type or I-type)")
    return TokenRecord(tuple(tokens), tuple(tags), site, person)


def _chat(
    row: Mapping[str, Any], columns: DataConfig, where: str, site: str | None, person: str | None
) -> ChatRecord:
    turns = _value(row, columns.messages, "messages", where)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: {columns.messages} must be a list of turns, and not empty")
    messages = []
    for number, turn in enumerate(turns, 1):
        role = turn.get("role") if isinstance(turn, Mapping) else None
        content = turn.get("content") if isinstance(turn, Mapping) else None
        if role not in get_args(Role) or not isinstance(content, str):
            raise DataError(
                f"{where}: turn {number} needs a role ({', '.join(get_args(Role))}) and a content"
            )
        messages.append(Message(cast(Role, role), content))
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise DataError(f"{where}: no turn of the assistant, so there is nothing to learn")
    return ChatRecord(tuple(messages), site, person)


def _value(row: Mapping[str, Any], column: str, key: str, where: str) -> Any:
    if row.get(column) is None:
        found = ", ".join(str(name) for name, value in row.items() if value is not None)
        raise DataError(
            f"{where}: no column {column!r} (found: {found or 'none'}); "
            f"set data.{key} to the column's name, or correct the row"
        )
    return row[column]


def _name(row: Mapping[str, Any], column: str, where: str, *, required: bool) -> str | None:
    value = row.get(column)
    if value is None or value == "":
        if required:
            raise DataError(f"{where}: no {column!r}; every row needs one, as data.person names it")
        return None
    return str(value)
