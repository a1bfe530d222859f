"""What a row of a file of interactions says: who had which items when."""

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

# What columns of a table are called: lower-case letters and figures of the whole name.
CALLED: Mapping[str, tuple[str, ...]] = {
    "person": ("user", "userid", "person", "personid", "customer", "customerid", "uid"),
    "item": ("item", "itemid", "movie", "movieid", "product", "productid", "asin", "newsid", "iid"),
    "time": ("timestamp", "time", "date", "datetime", "unixtime", "ts"),
    "rating": ("rating", "stars", "overall"),
}


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """How a file of interactions is read.

    Attributes:
        form: One of `forms.EVENTS`.
        person: Column of persons; absent: as the form says, or guessed by name.
        item: Column of items, likewise.
        time: Column of times, likewise.
        rating: Column of ratings, of which `least_rating` leaves low ones out.
        least_rating: Interactions with a lower one are left out; None: all count.
        separator: In place of the form's.
        encoding: In place of the form's.
        items: The public file of items; None: items are not looked up.
        known_only: Whether what is not in `items` is left out; else it is an error.
        fewest: People with fewer different items are left out.
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
        person: Who.
        items: Which.
        when: What the time is, and the number (`time_of_cell`).
        is_low: Whether it counts for nothing because of its rating.
    """

    person: str
    items: tuple[str, ...]
    when: tuple[str, float]
    is_low: bool = False


def events_of(
    rows: Iterable[tuple[int, Row]], name: str, named: SequenceOptions
) -> Iterator[tuple[str, Event]]:
    """The events of a table, a row each, each with where it is.

    Raises:
        UsageError: A column is not there.
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
    """The events of MIND's behaviors: what was clicked in each impression (`N123-1`).

    A person's history, of which MIND states no times, comes before everything else; it is the same
    in all of a person's rows, so it is taken once.

    Raises:
        MisfitError: A row has no time, or an impression is no id with -0 or -1.
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
                raise misfit(where, "impressions holds what is no id with -0 or -1 behind it")
            if click == "1":
                clicked.append(item)
        yield where, Event(person, tuple(clicked), when)


def _columns(names: tuple[str, ...], named: SequenceOptions) -> dict[str, str]:
    """The columns of a table by role: named, else by what they are called."""
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
                f"--{role}: no column is called like one (found: {listed(names)}); name it"
            )
    return found


def id_of_cell(value: Value, column: str, where: str) -> str:
    """A person's or an item's id, as the file writes it.

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
