"""Reads a row of a file of interactions: which person had which items at which time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloister.bounds import listed
from cloister.data.cells import misfit, whole
from cloister.data.interactions.times import time_of_cell
from cloister.data.targets import score_of_cell
from cloister.data.values import Number, Row, Value, is_integer, kind_of
from cloister.errors import UsageError

# Usual names of a table's columns; a name is compared by its lower-case letters and digits only.
CALLED: Mapping[str, tuple[str, ...]] = {
    "person": ("user", "userid", "person", "personid", "customer", "customerid", "uid"),
    "item": ("item", "itemid", "movie", "movieid", "product", "productid", "asin", "newsid", "iid"),
    "time": ("timestamp", "time", "date", "datetime", "unixtime", "ts"),
    "rating": ("rating", "stars", "overall"),
}


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """The options of `sequence_file`: the form of the file, its columns, and what is left out.

    Attributes:
        form: One of `forms.EVENTS`.
        person: Column of persons; absent: the form's column, or guessed by name.
        item: Column of items; absent: as for `person`.
        time: Column of times; absent: as for `person`.
        rating: Column of ratings, which `least_rating` needs.
        least_rating: Interactions with a lower rating are left out; None: none are.
        separator: Separator of cells; absent: the form's.
        encoding: Encoding of the text; absent: the form's.
        items: The public file of items; None: items are not looked up.
        known_only: Whether items that are not in `items` are left out; else they are an error.
        fewest: Persons with fewer different items are left out.
    """

    form: str = "table"
    person: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    least_rating: float | None = None
    separator: str | None = None
    encoding: str | None = None
    items: str | None = None
    known_only: bool = False
    fewest: int = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One or several items that a person had at one time, in this order.

    Attributes:
        person: The person's id.
        items: The items' ids.
        when: The kind of the time, and its number (`time_of_cell`).
        is_low: Whether it is left out because of its rating.
    """

    person: str
    items: tuple[str, ...]
    when: tuple[str, float]
    is_low: bool = False


def events_of(
    rows: Iterable[tuple[int, Row]], name: str, named: SequenceOptions
) -> Iterator[tuple[str, Event]]:
    """Yields the events of a table, one per row, each with its place for messages.

    Raises:
        UsageError: A column does not exist.
        MisfitError: A row lacks a value, or one cannot be read.
    """
    columns: dict[str, str] = {}
    for number, row in rows:
        columns = columns or _columns(tuple(row), named)
        where = f"{name}, row {number}"
        rating = columns.get("rating")
        yield (
            where,
            Event(
                id_of_cell(row.get(columns["person"]), columns["person"], where),
                (id_of_cell(row.get(columns["item"]), columns["item"], where),),
                time_of_cell(row.get(columns["time"]), columns["time"], where),
                is_low=rating is not None
                and score_of_cell(row.get(rating), rating, where)
                < (named.least_rating or -math.inf),
            ),
        )


def mind_events(
    rows: Iterable[tuple[int, Row]], name: str, named: SequenceOptions
) -> Iterator[tuple[str, Event]]:
    """Yields the events of MIND's behaviors: the clicked items of each impression (`N123-1`).

    MIND states no times for a person's history, so it comes before all other items. It is the
    same in all of a person's rows, so it is taken once.

    Raises:
        MisfitError: A row has no time, or an impression is not an id with -0 or -1 at its end.
    """
    begun: set[str] = set()
    for number, row in rows:
        where = f"{name}, row {number}"
        person = id_of_cell(row.get("user"), "user", where)
        when = time_of_cell(row.get("time"), "time", where)
        if person not in begun:
            begun.add(person)
            history = tuple(str(row.get("history") or "").split())
            yield where, Event(person, history, (when[0], -math.inf))
        clicked = []
        for shown in str(row.get("impressions") or "").split():
            item, _, click = shown.rpartition("-")
            if not item or click not in ("0", "1"):
                raise misfit(where, "impressions holds a value that is not an id with -0 or -1")
            if click == "1":
                clicked.append(item)
        yield where, Event(person, tuple(clicked), when)


def _columns(names: tuple[str, ...], named: SequenceOptions) -> dict[str, str]:
    """Returns the columns of a table by role: those that the user gave, else found by name."""
    found: dict[str, str] = {}
    for role, called in CALLED.items():
        given = getattr(named, role)
        if given is not None and given not in names:
            raise UsageError(f"--{role} {given}: no such column (found: {listed(names)})")
        plain = {"".join(c for c in n.lower() if c.isalnum()): n for n in reversed(names)}
        column = given or next((plain[word] for word in called if word in plain), None)
        if column is not None and (role != "rating" or named.least_rating is not None):
            found[role] = column
        elif role != "rating" or named.least_rating is not None:
            raise UsageError(
                f"--{role}: no column has a usual name for it (found: {listed(names)}); name it"
            )
    return found


def id_of_cell(value: Value, column: str, where: str) -> str:
    """Returns a person's or an item's id, as the file writes it.

    Raises:
        MisfitError: It is neither a text nor an integer, or empty.
    """
    match value:
        case str() if value.strip():
            return whole(value.strip(), column, where)
        case Number(literal) if is_integer(literal):
            return literal
    what = "empty" if isinstance(value, str) else kind_of(value)
    raise misfit(where, f"{column} is {what}; an id, a text or an integer, is needed")
