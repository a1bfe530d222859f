"""Made-up news: what three banks' analysts filed, what an agency publishes, and a stream.

A piece of news is about a company, has a topic and a sentiment, and is put in one of five wordings
(news.toml). The stream has two weeks: calm days, two surges of bad news on one company, and from
its eleventh day on another source, whose news are cheerful, so that the mix of sentiments changes.

Everything follows from seeds: equal seeds give equal news.
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
from cloister.watching.alert import iso

BANKS = ("alder", "birch", "cedar")
# Whose news are public, and tests; it has a wording of its own.
PUBLIC = "agency"
SENTIMENTS = ("negative", "neutral", "positive")
HOUR, DAY = 3600, 86_400
# The stream begins on a Monday: 2026-01-05T00:00:00Z, in seconds since 1970.
BEGINS = 1_767_571_200
# Days of the stream: the first are the calm reference, after these another source writes, then the
# days come live, and all.
REFERENCE, OTHER, LIVE, DAYS = 4, 10, 12, 14
# Pieces of news an hour, and those of a surge besides.
AN_HOUR, OF_A_SURGE = 5, 8
# Chances of the sentiments in calm news, and in those of the other source.
CALM, CHEERFUL = (3, 4, 3), (0, 1, 9)


@dataclass(frozen=True)
class Surge:
    """Hours in which much bad news on one company comes.

    Attributes:
        company: The company.
        topic: What the bad news are about.
        first: The first second.
        last: The last second.
    """

    company: str
    topic: str
    first: int
    last: int


def surges() -> tuple[Surge, ...]:
    """The two surges: one in the history, one on the last day, six hours each."""
    found = []
    for company, topic, day in (("Tessaro", "products", 7), ("Halden", "courts", DAYS - 1)):
        first = BEGINS + day * DAY + 9 * HOUR
        found.append(Surge(company, topic, first, first + 6 * HOUR))
    return tuple(found)


@dataclass(frozen=True)
class News:
    """A piece of news.

    Attributes:
        text: What it says.
        company: What it is about.
        topic: One of the topics of news.toml.
        sentiment: One of `SENTIMENTS`.
        at: When it came, in seconds since 1970; 0: of no stream.
        source: Who wrote it.
    """

    text: str
    company: str
    topic: str
    sentiment: str
    at: int = 0
    source: str = PUBLIC

    def record(self) -> dict[str, Any]:
        """A bank's record, or the agency's."""
        return {
            "text": self.text,
            "sentiment": self.sentiment,
            "topic": self.topic,
            "site": self.source,
        }


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "news.toml").read_text(encoding="utf-8"))


def topics() -> tuple[str, ...]:
    """The topics, in alphabetical order."""
    return tuple(sorted(_words()["topics"]))


def companies() -> tuple[str, ...]:
    """The companies."""
    return tuple(_words()["companies"])


def filed(source: str, count: int, seed: int = 0) -> list[News]:
    """What a bank's analysts filed, or what the agency published, with its labels.

    Args:
        source: A bank, or `PUBLIC`.
        count: How many pieces.
        seed: Equal seeds give equal news.
    """
    made = []
    for number in range(count):
        rng = random.Random(child_seed(seed, "filed", source, number))
        made.append(_written(rng, source, rng.choice(companies()), rng.choice(topics())))
    return made


def stream(seed: int = 0) -> Iterator[News]:
    """Yields two weeks of news by their times."""
    for hour in range(DAYS * 24):
        rng = random.Random(child_seed(seed, "hour", hour))
        begins = BEGINS + hour * HOUR
        found = [_streamed(rng, begins) for _ in range(AN_HOUR)]
        for surge in surges():
            if surge.first <= begins < surge.last:
                found += [_of_surge(rng, surge, begins) for _ in range(OF_A_SURGE)]
        yield from sorted(found, key=lambda one: one.at)


def happened() -> list[Mapping[str, str]]:
    """What really happened before the live days, as `cloister model watch --events` reads it.

    A surge is also a drift of that day: its bad news are a third of the day's.
    """
    other = {"start": iso(BEGINS + OTHER * DAY), "end": iso(BEGINS + LIVE * DAY)}
    found = [{"kind": "drift", **other}]
    for one in surges():
        if one.first < BEGINS + LIVE * DAY:
            times = {"start": iso(one.first), "end": iso(one.last)}
            found += [
                {"kind": "surge", "key": f"company={one.company}", **times},
                {"kind": "drift", **times},
            ]
    return found


def _streamed(rng: random.Random, begins: int) -> News:
    at, company, topic = begins + rng.randrange(HOUR), rng.choice(companies()), rng.choice(topics())
    is_other = begins >= BEGINS + OTHER * DAY
    return _written(rng, PUBLIC, company, topic, at, CHEERFUL if is_other else CALM)


def _of_surge(rng: random.Random, surge: Surge, begins: int) -> News:
    at = begins + rng.randrange(HOUR)
    return _written(rng, PUBLIC, surge.company, surge.topic, at, (1, 0, 0))


def _written(
    rng: random.Random,
    source: str,
    company: str,
    topic: str,
    at: int = 0,
    chances: Sequence[int] = CALM,
) -> News:
    (sentiment,) = rng.choices(SENTIMENTS, chances)
    *wordings, agency = _words()["topics"][topic][sentiment]
    # The stream is the agency's: half of its news are in its own wording.
    is_own = source == PUBLIC and (not at or rng.random() < 1 / 2)
    said = agency if is_own else rng.choice(wordings)
    opening, ending = rng.choice(_words()["openings"]), rng.choice(_words()["endings"])
    return News(f"{opening}{company} {said}.{ending}", company, topic, sentiment, at, source)
