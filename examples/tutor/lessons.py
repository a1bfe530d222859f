"""Questions, hints and learning material of the course, and what pupils of made-up schools wrote.

Everything of the course is public. The pupils' answers are the private part; they are drawn here,
and equal seeds give equal answers. An answer has some of a question's ideas, each in one of the
ways in which pupils put it, now and then something wrong, and much that is neither.
Its teacher gave a point for each idea, and to whom an idea was missing the material of the first
one that was.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.seeds import child_seed

# How likely a pupil of each school has an idea, and how strongly pupils differ.
SCHOOLS = {"ashgrove": 0.62, "brookside": 0.5, "castle-hill": 0.42, "deepdale": 0.55}
SPREAD = 0.3
# The class whose answers are public, and the test set; its pupils put things in a way of their own.
PUBLIC = "public-class"
# Questions that a pupil answers.
ANSWERED = 4
# How often an answer says something wrong besides.
WRONG = 0.4
# What is neither right nor wrong. It makes the length of an answer say little of its points.
FILLERS = (
    "I am not sure about the rest of it.",
    "We talked about this last week and I liked it a lot.",
    "My brother told me so when we were on holiday.",
    "This is what I remember from the lesson with the film.",
    "I would like to see it with my own eyes one day.",
    "That is a good question, and I have asked it myself before.",
)


@dataclass(frozen=True)
class Idea:
    """Part of a full answer.

    Attributes:
        key: Its material's id, after the question's.
        said: How pupils put it; the last way is the public class's.
        hint: What a teacher would ask back.
        title: Of its material.
        text: Of its material.
    """

    key: str
    said: tuple[str, ...]
    hint: str
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question of the course.

    Attributes:
        key: Short.
        text: As pupils read it.
        wrong: What some say that is not so.
        nudge: The hint for whom nothing came to mind.
        ideas: Of a full answer, in the order in which they are taught.
    """

    key: str
    text: str
    wrong: tuple[str, ...]
    nudge: str
    ideas: tuple[Idea, ...]


@dataclass(frozen=True)
class Answer:
    """A pupil's answer, as the teacher saw it.

    Attributes:
        school: Where.
        pupil: Who.
        question: To what.
        text: As it was written.
        had: Which ideas are in it.
    """

    school: str
    pupil: str
    question: Question
    text: str
    had: tuple[bool, ...]

    @property
    def score(self) -> int:
        """Returns the teacher's points, 0 to 3."""
        return sum(self.had)

    @property
    def material(self) -> str | None:
        """Returns the id of the material of the first idea that is missing; None: none is."""
        missing = [i for i, had in zip(self.question.ideas, self.had, strict=True) if not had]
        return material_id(self.question, missing[0]) if missing else None


def material_id(question: Question, idea: Idea) -> str:
    """The id of an idea's material."""
    return f"{question.key}.{idea.key}"


def read_as(question: Question, answer: str) -> str:
    """What the models read: the question, then the answer."""
    return f"{question.text} {answer}"


def questions() -> tuple[Question, ...]:
    """The course, from `lessons.toml`."""
    text = (Path(__file__).parent / "lessons.toml").read_text(encoding="utf-8")
    return tuple(
        Question(
            table["key"],
            table["text"],
            (*table["wrong"],),
            table["nudge"],
            tuple(
                Idea(one["key"], (*one["said"],), one["hint"], one["title"], one["text"])
                for one in table["ideas"]
            ),
        )
        for table in tomllib.loads(text)["questions"]
    )


def answers(school: str, pupils: int, seed: int = 0) -> Iterator[Answer]:
    """What so many pupils of a school answered, each to `ANSWERED` questions.

    Args:
        school: One of `SCHOOLS`, or `PUBLIC`.
        pupils: How many.
        seed: Equal seeds give equal answers.
    """
    course = questions()
    for number in range(pupils):
        draw = random.Random(child_seed(seed, "school", school, number))
        able = SCHOOLS.get(school, 0.5) + draw.uniform(-SPREAD, SPREAD)
        for question in draw.sample(course, ANSWERED):
            had = tuple(draw.random() < able for _ in question.ideas)
            parts = [
                idea.said[-1] if school == PUBLIC else draw.choice(idea.said[:-1])
                for idea, has in zip(question.ideas, had, strict=True)
                if has
            ]
            if not parts or draw.random() < WRONG:
                parts.append(draw.choice(question.wrong))
            parts += draw.sample(FILLERS, draw.randrange(4))
            draw.shuffle(parts)
            yield Answer(school, f"{school}-{number:04d}", question, " ".join(parts), had)
