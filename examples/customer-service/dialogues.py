"""Past dialogues of made-up desks, and the pages that their customers are answered from.

Customers, questions and answers are drawn from `desks.toml`; equal seeds give equal dialogues. A
desk answers in one form: the number of the page, its title and its first sentence. That form is
what the desks have in common, and what their model is to learn; what is on a page it is not.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.seeds import child_seed

# The desk whose dialogues are public, and the test set. It trains on nothing.
PUBLIC = "library"
OPENINGS = ("Hello,", "Hi,", "Good morning,", "Dear team,", "")
CLOSINGS = ("Thank you.", "Thanks!", "Please help.", "")
# One customer in so many wrote twice.
TWICE = 5


@dataclass(frozen=True)
class Topic:
    """One help page, and what is asked about it.

    Attributes:
        key: Its file's name.
        title: Its title.
        page: Its text.
        fact: Part of the page, which a right answer holds.
        asks: Questions.
    """

    key: str
    title: str
    page: str
    fact: str
    asks: tuple[str, ...]


@dataclass(frozen=True)
class Desk:
    """An institution's desk.

    Attributes:
        key: The site's name.
        name: As customers know it.
        topics: Its pages.
    """

    key: str
    name: str
    topics: tuple[Topic, ...]


@dataclass(frozen=True)
class Dialogue:
    """One question and what the desk answered.

    Attributes:
        desk: Where.
        customer: Who asked.
        topic: The page that answers.
        question: As it was asked.
    """

    desk: Desk
    customer: str
    topic: Topic
    question: str

    def answer(self, number: int) -> str:
        """What the desk wrote.

        Args:
            number: The page's number among those that the desk had in view.
        """
        first = self.topic.page.partition(". ")[0].rstrip(".")
        return f"[{number}] {self.topic.title}: {first}."


def desks() -> dict[str, Desk]:
    """The desks of `desks.toml`, by name."""
    text = (Path(__file__).parent / "desks.toml").read_text(encoding="utf-8")
    return {
        key: Desk(
            key,
            table["name"],
            tuple(
                Topic(topic, one["title"], one["page"], one["fact"], (*one["asks"],))
                for topic, one in table["topics"].items()
            ),
        )
        for key, table in tomllib.loads(text).items()
    }


def dialogues(desk: Desk, customers: int, seed: int = 0) -> Iterator[Dialogue]:
    """The dialogues of so many customers of a desk, most with one, some with two.

    Args:
        desk: The desk.
        customers: How many.
        seed: Equal seeds give equal dialogues.
    """
    for number in range(customers):
        draw = random.Random(child_seed(seed, "desk", desk.key, number))
        for topic in draw.sample(desk.topics, 1 + (draw.randrange(TWICE) == 0)):
            words = (draw.choice(OPENINGS), draw.choice(topic.asks), draw.choice(CLOSINGS))
            yield Dialogue(desk, f"{desk.key}-{number:04d}", topic, _joined(*words))


def _joined(opening: str, ask: str, closing: str) -> str:
    """Opening, question and closing as one text."""
    end = "" if ask[-1] in "?.!" else "."
    first = ask if opening or ask.startswith("I ") else ask[0].upper() + ask[1:]
    return " ".join(word for word in (opening, first + end, closing) if word)
