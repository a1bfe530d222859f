"""Makes records of rows, and names file and row of each value that the task cannot use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from cloister.data.cells import misfit, whole
from cloister.data.chat_rows import OTHERS, PAIR, preferred, raw_text, turns_in, turns_of
from cloister.data.config import DataConfig
from cloister.data.records import (
    ONE_LABEL,
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    PairRecord,
    Record,
    RecordKind,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.data.sequences import items_of_cell
from cloister.data.source import RECIPE, DataOrigin
from cloister.data.tag_schemes import BIO, KNOWN, as_bio
from cloister.data.targets import labels_in_cell, labels_of_cell, score_of_cell
from cloister.data.unit_column import UNIT
from cloister.data.values import Number, Row, Value, is_integer, kind_of, shown
from cloister.errors import DataError, MisfitError

# A further remedy for a missing column.
_ELSE = {"site": ", choose another data.partition"}
# Most columns of a row that a message lists; more would fill the terminal.
LISTED = 12


class MixedColumnError(DataError):
    """A column of identifiers or labels mixes texts and integers, so none of its rows is used."""


@dataclass(frozen=True)
class Reading:
    """Makes records from one file's rows.

    Identifiers and labels are texts or integers, as they are written. A column must have only one
    of the two: otherwise `1` and `"1"` would silently become one person, or `7` and `"007"` two.

    Attributes:
        kind: The kind of record that the task reads.
        columns: Column names.
        persons: Whether privacy units are needed, as for training data: each row must name its
            person, if `columns` names a column for it, and its unit, if it has `UNIT`.
        sites: Whether each row must name its site.
        asker: Where the user names the columns, for messages.
        augmented: Whether the file has copies of records, so that each row needs its unit.
    """

    kind: RecordKind
    columns: DataConfig
    persons: bool
    sites: bool
    asker: DataOrigin = RECIPE
    augmented: bool = False
    # By column: the kind of its first value, and that row's number.
    _first: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def columns_read(self) -> tuple[str, ...]:
        """Returns the columns that are used."""
        columns = self.columns
        read = {
            "text": (columns.text, columns.label),
            "pairs": (columns.text, columns.second, columns.label),
            "tokens": (columns.tokens, columns.tags),
            "messages": (columns.messages, *PAIR, *OTHERS),
            "labels": (columns.text, columns.labels_column),
            "score": (columns.text, columns.score_column),
            "items": (columns.items_column,),
        }[self.kind]
        if self.sites:
            read += (columns.site,)
        if self.persons:
            read += (UNIT,) if columns.person is None else (columns.person, UNIT)
        return read

    def record(self, row: Row, name: str, number: int) -> Record:
        """Makes a record from a row.

        Args:
            row: Values by column.
            name: The file's name, for messages.
            number: The row's number.

        Raises:
            MisfitError: A column is missing, or its value cannot be used.
            MixedColumnError: A column mixes texts and integers.
        """
        record, nameless = self.record_and_person(row, name, number)
        if nameless is not None:
            raise nameless
        return record

    def record_and_person(
        self, row: Row, name: str, number: int
    ) -> tuple[Record, MisfitError | None]:
        """Makes a record from a row, even if it names no person: see `record`.

        Returns:
            The record, and the reason why a needed person is missing; None: none is missing.

        Raises:
            MisfitError: A column other than the person's is missing or cannot be used.
            MixedColumnError: A column mixes texts and integers, even if the row is wrong otherwise.
        """
        where, columns = f"{name}, row {number}", self.columns
        self._compare_kinds(row, where, number)
        site = person = nameless = None
        if self.sites:
            site = self._written(row, columns.site, "site", where)
        if self.persons and columns.person is not None:
            try:
                person = self._written(row, columns.person, "person", where)
            except MisfitError as error:
                nameless = error
        record = self._record(row, where, site, person)
        unit = self._unit(row, where) if self.persons else None
        return (record if unit is None else replace(record, unit=unit)), nameless

    def _unit(self, row: Row, where: str) -> str | None:
        """Returns the unit that a row shares with its copies; None: it is the record's only row.

        A copy without a unit would count as a record of its own, and its source would count twice.
        """
        if UNIT in row:
            return self._written(row, UNIT, "unit", where)
        if not self.augmented:
            return None
        raise misfit(
            where,
            f"no {UNIT}, but the log beside the file says that it has copies of records: use the "
            "file as cloister data augment wrote it, or augment its source again",
        )

    def _record(self, row: Row, where: str, site: str | None, person: str | None) -> Record:
        columns = self.columns
        if self.kind == "tokens":
            return _tokens(self, row, where, site, person)
        if self.kind == "messages":
            return _chat(self, row, where, site, person)
        if self.kind == "items":
            cell = self._value(row, columns.items_column, "items", where)
            return ItemsRecord(items_of_cell(cell, columns.items_column, where), site, person)
        text = self._text(row, columns.text, "text", where)
        if self.kind == "pairs":
            second = self._text(row, columns.second, "text_b", where)
            return PairRecord(text, self._label(row, where), site, person, text_b=second)
        if self.kind == "labels":
            cell = self._value(row, columns.labels_column, "labels", where)
            found = labels_of_cell(cell, columns.labels_column, columns.label_separator, where)
            return LabelsRecord(text, found, site, person)
        if self.kind == "score":
            cell = self._value(row, columns.score_column, "score", where)
            return ScoreRecord(text, score_of_cell(cell, columns.score_column, where), site, person)
        return TextRecord(text, self._label(row, where), site, person)

    def _label(self, row: Row, where: str) -> str:
        """Returns the label; equal labels are one object, which saves memory."""
        return sys.intern(self._written(row, self.columns.label, "label", where))

    def _text(self, row: Row, column: str, key: str, where: str) -> str:
        text = self._value(row, column, key, where)
        if not isinstance(text, str):
            raise misfit(where, f"{column} is {kind_of(text)}; text is needed")
        if not text.strip():
            raise misfit(where, f"{column} is empty; a text is needed")
        return whole(text, column, where)

    def _compare_kinds(self, row: Row, where: str, number: int) -> None:
        """Requires one kind of value in each column of identifiers or labels of every row."""
        columns = self.columns
        keys = [(columns.site, "site")] * self.sites
        keys += [(columns.label, "label")] * (self.kind in ONE_LABEL)
        if self.persons:
            keys.append((UNIT, "unit"))
        if self.persons and columns.person is not None:
            keys.append((columns.person, "person"))
        values = [(column, row.get(column), key) for column, key in keys]
        if self.kind == "labels":
            values += self._each_label(row, where)
        for column, value, key in values:
            found = _spelling(value, key)
            if found is None or not found[0]:
                continue
            first, first_row = self._first.setdefault(column, (found[1], number))
            if first != found[1]:
                raise MixedColumnError(
                    f"{where}: {column} is {found[1]} here and {first} in row {first_row}, so it "
                    "is not known which values are equal; write all as text"
                )

    def _each_label(self, row: Row, where: str) -> list[tuple[str, Value, str]]:
        """Returns a row's labels one by one, to compare their kinds; empty: it has no list."""
        columns = self.columns
        column, separator = columns.labels_column, columns.label_separator
        try:
            found = labels_in_cell(row.get(column), column, separator, where)
        except MisfitError:  # `_record` reports it
            return []
        return [(column, label, "labels") for label in found]

    def _written(self, row: Row, column: str, key: str, where: str) -> str:
        """Returns an identifier or a label as it is written in the file."""
        value = self._value(row, column, key, where)
        found = _spelling(value, key)
        if found is None:
            number_shown = f" ({shown(value.written)})" if isinstance(value, Number) else ""
            rule = (
                f"a {key} must be text or an integer, which have only one spelling: write it as "
                "text"
            )
            raise MisfitError(
                f"{column} is {kind_of(value)}; {rule}",
                f"{where}: {column} is {kind_of(value)}{number_shown}; {rule}",
            )
        if not found[0]:
            raise misfit(where, f"{column} is empty; every row needs its {key}")
        return whole(found[0], column, where)

    def _value(self, row: Row, column: str, key: str, where: str) -> Value:
        value = row.get(column)
        if value is None and column in row:
            raise misfit(where, f"{column} has no value (null); every row needs its {key}")
        if value is None:
            held = [shown(name) for name, other in row.items() if other is not None]
            found = ", ".join(held[:LISTED]) + (", …" if len(held) > LISTED else "")
            remedy = f"{self.asker.remedy(key)}{_ELSE.get(key, '')}, or correct the row"
            raise MisfitError(
                f"no column {column!r}; {remedy}",
                f"{where}: no column {column!r} (found: {found or 'none'}); {remedy}",
            )
        return value


def _spelling(value: Value, key: str) -> tuple[str, str] | None:
    """Returns spelling and kind of an identifier or label; None: it has several spellings."""
    match value:
        case str():
            return value, "text"
        case Number(literal) if is_integer(literal):
            return literal, "an integer"
        case bool() if key == "label":
            return ("true" if value else "false"), "true or false"
    return None


def _tokens(
    reading: Reading, row: Row, where: str, site: str | None, person: str | None
) -> TokenRecord:
    columns = reading.columns
    tokens = words_of(reading._value(row, columns.tokens, "tokens", where), columns.tokens, where)
    tags = words_of(reading._value(row, columns.tags, "tags", where), columns.tags, where)
    if len(tokens) != len(tags):
        raise MisfitError(
            f"{columns.tokens} and {columns.tags} differ in number; each word needs one tag",
            f"{where}: {len(tokens)} {columns.tokens} but {len(tags)} {columns.tags}",
        )
    wrong = [tag for tag in tags if not KNOWN.fullmatch(tag)]
    if wrong:
        raise MisfitError(
            f"{columns.tags} holds a tag that is not BIO (O, B-type or I-type) or BIOES",
            f"{where}: tag {shown(wrong[0])!r} is not BIO (O, B-type or I-type) or BIOES",
        )
    if not all(BIO.fullmatch(tag) for tag in tags):
        tags = as_bio(tags)
    return TokenRecord(tokens, tags, site, person)


def words_of(value: Value, column: str, where: str) -> tuple[str, ...]:
    """Returns the words of a sentence.

    Raises:
        MisfitError: The value is not a list of words, or is empty.
    """
    if isinstance(value, str):
        raise misfit(
            where,
            f"{column} is text, not a list of words, which CSV cannot hold: use JSONL or Parquet",
        )
    words = value if isinstance(value, Sequence) else ()
    if not words or not all(isinstance(word, str) for word in words):
        raise misfit(where, f"{column} must be a list of words that is not empty")
    return tuple(whole(cast(str, word), column, where) for word in words)


def _chat(
    reading: Reading, row: Row, where: str, site: str | None, person: str | None
) -> ChatRecord:
    columns = reading.columns
    messages = None
    if row.get(columns.messages) is None:
        if all(row.get(name) is not None for name in PAIR[1:]):
            chosen, rejected = (preferred(row, name, where) for name in PAIR[1:])
            return ChatRecord(chosen, site, person, rejected=rejected)
        messages = turns_in(row, where)
    if messages is None:
        turns = reading._value(row, columns.messages, "messages", where)
        if isinstance(turns, str):
            return ChatRecord((), site, person, raw_text(turns, columns.messages, where))
        messages = turns_of(turns, columns.messages, where)
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise misfit(where, "no turn of the assistant, so nothing can be learnt")
    return ChatRecord(messages, site, person)
