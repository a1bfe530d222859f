"""Made-up customers of three shops, last year and this year, and the shops' public catalogue.

A customer has one or two hobbies and a style. Mostly the next purchase is the next thing of the
hobby at hand, in the customer's style; sometimes the other hobby goes on, or it is a present.
This year each hobby has a new thing (hobbies.toml), which people take after the second one. So what
last year's customers did is right about most things, and wrong about what follows the second.

Everything follows from seeds: equal seeds give equal customers.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cloister.seeds import child_seed

SHOPS = ("harbour", "market", "station")
# Whose customers train nothing: their purchases are public, and tests.
PUBLIC = "village"
# Of purchases: the next thing of the hobby at hand, that of the other hobby; the rest are presents.
GOES_ON, CHANGES = 0.8, 0.1
# How often a purchase has the customer's own style.
OWN_STYLE = 0.9
FEWEST, MOST = 3, 6
# The place in a hobby's row after which this year's new thing comes.
SECOND = 1


@dataclass(frozen=True)
class Hobby:
    """A hobby's things, in the order in which they are bought.

    Attributes:
        name: Its name.
        things: What it takes, in last year's order.
        new: What is new this year.
    """

    name: str
    things: tuple[str, ...]
    new: str

    def row(self, *, this_year: bool) -> tuple[str, ...]:
        """The order of purchases, as the things' places in ids: `1`, `2`, …, and `new`."""
        places = [str(place) for place in range(1, len(self.things) + 1)]
        if this_year:
            places.insert(SECOND + 1, "new")
        return tuple(places)


@dataclass(frozen=True)
class Customer:
    """A customer and what they have, oldest first.

    Attributes:
        shop: Where they buy.
        person: Their id.
        items: Ids of what they have.
    """

    shop: str
    person: str
    items: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """The customer as a record of a data file."""
        return {"items": list(self.items), "site": self.shop, "person": self.person}


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "hobbies.toml").read_text(encoding="utf-8"))


def hobbies() -> tuple[Hobby, ...]:
    """The hobbies of hobbies.toml."""
    return tuple(
        Hobby(name, tuple(row["things"]), row["new"]) for name, row in _words()["hobbies"].items()
    )


def styles() -> Mapping[str, Sequence[str]]:
    """The styles in which every thing is sold, each in several wordings."""
    found: Mapping[str, Sequence[str]] = _words()["styles"]
    return found


def catalogue() -> list[dict[str, str]]:
    """The public items, with this year's: ids and texts, always the same."""
    rows = []
    for hobby in hobbies():
        for place in hobby.row(this_year=True):
            thing = hobby.new if place == "new" else hobby.things[int(place) - 1]
            for style, wordings in styles().items():
                item = f"{hobby.name}-{place}-{style}"
                said = random.Random(child_seed(0, "item", item)).choice(wordings)
                text = f"{thing} {said}" if said.startswith("for ") else f"{said} {thing}"
                rows.append({"item": item, "text": text})
    return rows


def customers(shop: str, count: int, *, this_year: bool = False, seed: int = 0) -> list[Customer]:
    """Makes customers of a shop, each with three to six things, of which the last came next.

    Args:
        shop: Its name.
        count: How many.
        this_year: Whether they bought this year, when the new things are on the shelves.
        seed: Equal seeds give equal customers.
    """
    year = "this" if this_year else "last"
    made = []
    for number in range(count):
        rng = random.Random(child_seed(seed, shop, year, number))
        items = _bought(rng, rng.randint(FEWEST, MOST), this_year=this_year)
        person = f"{shop}-{number:04d}" if not this_year else f"{shop}-n{number:04d}"
        made.append(Customer(shop, person, items))
    return made


def returning(found: Sequence[Customer], seed: int = 0) -> Iterator[tuple[Customer, str]]:
    """Last year's customers who come back for their hobby, and what each takes next this year.

    A customer asks for one hobby, with its first things so far in one style.

    Args:
        found: The customers.
        seed: Equal seeds give equal visits.

    Yields:
        Each as they come, with the item that they take.
    """
    for one in found:
        rng = random.Random(child_seed(seed, "visit", one.person))
        hobby = rng.choice(hobbies())
        style = rng.choice(list(styles()))
        row = hobby.row(this_year=True)
        # Every other visit is about the place where this year differs.
        has = SECOND + 1 if rng.random() < 1 / 2 else rng.randint(1, len(row) - 1)
        ids = [f"{hobby.name}-{place}-{style}" for place in row]
        yield Customer(one.shop, one.person, tuple(ids[:has])), ids[has]


def _bought(rng: random.Random, most: int, *, this_year: bool) -> tuple[str, ...]:
    names = rng.sample(hobbies(), rng.choice((1, 2)))
    own = rng.choice(list(styles()))
    rows = {hobby.name: list(hobby.row(this_year=this_year)) for hobby in names}
    for row in rows.values():  # some begin in the middle
        del row[: rng.choice((0, 0, 1))]
    bought: dict[str, None] = {}
    at = names[0].name
    while len(bought) < most:
        draw = rng.random()
        if draw >= GOES_ON and draw < GOES_ON + CHANGES:
            at = names[-1].name
        style = own if rng.random() < OWN_STYLE else rng.choice(list(styles()))
        if draw < GOES_ON + CHANGES and rows[at]:
            bought[f"{at}-{rows[at].pop(0)}-{style}"] = None
        else:
            bought[_present(rng, this_year=this_year)] = None
    return tuple(bought)


def _present(rng: random.Random, *, this_year: bool) -> str:
    """Any item that is on the shelves."""
    hobby = rng.choice(hobbies())
    place = rng.choice(hobby.row(this_year=this_year))
    return f"{hobby.name}-{place}-{rng.choice(list(styles()))}"
