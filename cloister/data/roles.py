"""Finds the role of each column of a file: given by the user, or guessed from its first rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from cloister.bounds import listed
from cloister.data.cells import misfit
from cloister.data.chat_rows import OTHERS, PAIR, preferred, turns_in, turns_of
from cloister.data.guess import first_rows, guess_columns, is_spaceless
from cloister.data.record_schema import words_of
from cloister.data.records import Message, RecordKind
from cloister.data.sequences import items_of_cell
from cloister.data.values import Number, Row, Value, is_integer, kind_of
from cloister.errors import MisfitError, UsageError

# The columns of each kind of record.
OWN: Mapping[RecordKind, tuple[str, ...]] = {
    "text": ("text", "label"),
    "pairs": ("text", "text_b", "label"),
    "tokens": ("tokens", "tags"),
    "messages": ("messages",),
    "labels": ("text", "labels"),
    "score": ("text", "score"),
    "items": ("items",),
}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The columns of a file, by role; None: no such column.

    Attributes:
        kind: The kind of record of the rows.
        text: A text.
        text_b: The second text of a pair.
        label: A text's label.
        tokens: A sentence's words.
        tags: The words' tags.
        messages: A conversation; None also if a row has one in other columns.
        person: The person whom the row is about.
        site: The institution.
        id: The row's identifier.
        split: The part of the data that the row belongs to.
        labels: A text's labels, several or none.
        label_separator: Separates labels in a cell of text; None: they are a list.
        score: A text's score.
        items: A person's items, oldest first.
        guessed: The roles that the user did not give.
    """

    kind: RecordKind
    text: str | None = None
    text_b: str | None = None
    label: str | None = None
    tokens: str | None = None
    tags: str | None = None
    messages: str | None = None
    person: str | None = None
    site: str | None = None
    id: str | None = None
    split: str | None = None
    labels: str | None = None
    label_separator: str | None = None
    score: str | None = None
    items: str | None = None
    guessed: tuple[str, ...] = ()

    def columns(self) -> dict[str, str]:
        """Returns the columns that exist, by role."""
        others = ("kind", "guessed", "label_separator")
        names = [f.name for f in fields(self) if f.name not in others]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def find_roles(
    rows: Iterable[tuple[int, Row]],
    given: Mapping[str, str | None],
    others: Sequence[str] = (),
    label_separator: str | None = None,
) -> Roles:
    """Finds the roles of a file's columns.

    Args:
        rows: The file's rows; the first 1,000 are used, or fewer if they are large.
        given: Columns by role, from the user; None: not given.
        others: Columns that have no role.
        label_separator: Separates labels in a cell of text; None: a list is needed.

    Raises:
        UsageError: A given column is not in the first rows or has two roles, no column of texts is
            found, or none whose labels the separator separates.
        DataError: The file is damaged or has no row.
    """
    first = first_rows(rows)
    names = list(dict.fromkeys(name for row in first for name in row))
    chosen = {role: name for role, name in given.items() if name is not None}
    for role, name in chosen.items():
        if name not in names:
            raise UsageError(
                f"--{role.replace('_', '-')} {name}: no such column in the first {len(first)} rows "
                f"(found: {listed(names)}); give one of these"
            )
    _check_one_role(chosen)
    kind, found = guess_columns(names, first)
    if kind is None and not chosen.keys() & {"text", "tokens"} and _is_chat(first):
        kind, found = "messages", {k: v for k, v in found.items() if k in ("person", "site")}
    kind = _kind(kind, found, chosen, label_separator)
    if kind is None:
        raise UsageError(
            f"found no column of texts (columns: {listed(names)}); name it with --text"
        )
    own = OWN[kind]
    taken = {*chosen.values(), *others}
    kept = {
        role: name
        for role, name in found.items()
        if role in (*own, "person", "site") and role not in chosen and name not in taken
    }
    if kind == "labels" and "labels" not in {**kept, **chosen}:
        raise UsageError(
            f"--label-separator: found no column of several labels (columns: {listed(names)}); "
            "name it with --labels"
        )
    return Roles(
        kind=kind, guessed=tuple(kept), label_separator=label_separator, **{**kept, **chosen}
    )


def _check_one_role(chosen: Mapping[str, str]) -> None:
    """Refuses one column for two roles; a record's id may be its person's."""
    by_column: dict[str, str] = {}
    for role, name in chosen.items():
        if role != "id" and (other := by_column.setdefault(name, role)) != role:
            first, second = (f"--{one.replace('_', '-')}" for one in (other, role))
            raise UsageError(f"{first}, {second}: {name} given for both; name two columns")


def _kind(
    guessed: RecordKind | None,
    found: Mapping[str, str],
    chosen: Mapping[str, str],
    label_separator: str | None,
) -> RecordKind | None:
    if "tokens" in chosen:
        return "tokens"
    if "messages" in chosen:
        return "messages"
    if "labels" in chosen or label_separator is not None:
        return "labels"
    if "score" in chosen:
        return "score"
    if "items" in chosen:
        return "items"
    if "text_b" in chosen or (guessed == "pairs" and not chosen.keys() & {"text", "label"}):
        return "pairs"
    if "text" in chosen or "label" in chosen:
        return "text"
    return guessed or ("text" if "text" in found else None)


def _is_chat(rows: Sequence[Row]) -> bool:
    """Returns whether every row has a conversation in columns of another form."""
    try:
        return all(_turns(row, None, "a row") is not None for row in rows)
    except MisfitError:
        return bool(rows) and bool({*OTHERS, *PAIR[1:]} & rows[0].keys())


def _turns(row: Row, column: str | None, where: str) -> tuple[Message, ...] | None:
    if column is not None and row.get(column) is not None:
        value = row[column]
        if isinstance(value, str):
            return (Message("assistant", value),)
        return turns_of(value, column, where)
    if all(row.get(name) is not None for name in PAIR[1:]):
        return tuple(turn for name in PAIR[1:] for turn in preferred(row, name, where))
    return turns_in(row, where)


def refuse_items(roles: Roles, command: str) -> None:
    """Refuses people's items where a command needs their texts.

    Raises:
        UsageError: The rows are people's items.
    """
    if roles.kind == "items":
        raise UsageError(
            f"{command}: the rows are people's items (column {roles.items}), ids without a text; "
            "run it on the public file of items"
        )


def text_of(row: Row, roles: Roles, where: str) -> str:
    """Returns a row's text, both texts, words, ids of items or turns, as one text.

    Raises:
        MisfitError: The row has none.
    """
    if roles.kind == "tokens":
        words = words_of(row.get(roles.tokens or ""), roles.tokens or "tokens", where)
        return ("" if is_spaceless(words) else " ").join(words)
    if roles.kind == "messages":
        turns = _turns(row, roles.messages, where)
        if turns is None:
            raise misfit(where, "no conversation; messages, or another form's columns, are needed")
        return "\n".join(turn.content for turn in turns)
    if roles.kind == "items":
        column = roles.items or "items"
        return " ".join(items_of_cell(row.get(column), column, where))
    text = _text(row, roles.text or "text", where)
    return f"{text}\n{_text(row, roles.text_b, where)}" if roles.text_b is not None else text


def _text(row: Row, column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        raise misfit(where, f"{column} is missing; every row needs its text")
    if not isinstance(value, str):
        raise misfit(where, f"{column} is {kind_of(value)}; text is needed")
    return value


def written(value: Value) -> str | None:
    """Returns an identifier or label as the file writes it; None: none, or not text or integer."""
    match value:
        case str():
            return value or None
        case Number(literal) if is_integer(literal):
            return literal
        case bool():
            return "true" if value else "false"
    return None
