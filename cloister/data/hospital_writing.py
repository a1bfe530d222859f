"""The writing style of each synthetic hospital, for the same visits."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_ABBREVIATIONS = {
    "shortness of breath": "SOB",
    "high blood pressure": "HTN",
    "type 2 diabetes": "T2DM",
    "atrial fibrillation": "AF",
    "heart failure": "CCF",
    "chest pain": "CP",
    "abdominal": "abdo",
    "temperature": "temp",
    "headache": "HA",
    "bloods": "FBC",
    "right": "R",
    "left": "L",
    "with": "w/",
    "and": "+",
}
_ABBREVIATED = re.compile(rf"\b({'|'.join(_ABBREVIATIONS)})\b")

# Durations as British notes count them: 3/7 is three days, 2/52 two weeks.
_FRACTIONS = {"hours": "h", "days": "/7", "weeks": "/52", "months": "/12"}

_ARTICLE = re.compile(r"^an? ")
_SENTENCE_START = re.compile(r"(?:^|(?<=\. ))[a-z]")

Unit = Literal["hours", "days", "weeks", "months"]
Part = Literal["opening", "also", "history", "denied", "remark"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """The facts of one visit, from which a note is written.

    Attributes:
        age: In years; 0 for a baby.
        female: Otherwise male.
        complaint: The main complaint.
        also: A second complaint.
        count: How many units of time ago it began.
        unit: The unit.
        history: Long-standing conditions.
        denied: A complaint that the person denied.
        remark: A remark without meaning for the label.
    """

    age: int
    female: bool
    complaint: str
    also: str | None
    count: int
    unit: Unit
    history: tuple[str, ...]
    denied: str | None
    remark: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Habit:
    """How one synthetic hospital writes its notes.

    Attributes:
        parts: Wordings of each part of a note, in the order in which parts are written. `{it}` is
            the part's content; an opening also has `{who}` and `{time}`. Empty parts are left out.
        capitals: Everything in capitals.
        abbreviates: Shortens words and durations.
        typos: Share of the words of six letters or more with two letters swapped.
    """

    parts: Mapping[Part, tuple[str, ...]]
    capitals: bool = False
    abbreviates: bool = False
    typos: float = 0.01

    def write(self, visit: Visit, rng: random.Random) -> str:
        """Writes one visit as a note, in this hospital's style.

        Args:
            visit: The facts.
            rng: The generator of wordings and typos.

        Returns:
            The note, one line.
        """
        said: dict[Part, str | None] = {
            "opening": visit.complaint,
            "also": visit.also,
            "history": " and ".join(visit.history),
            "denied": visit.denied and _ARTICLE.sub("", visit.denied),
            "remark": visit.remark,
        }
        who, time = self._who(visit), self._time(visit)
        text = " ".join(
            rng.choice(wordings).format(it=said[part], who=who, time=time)
            for part, wordings in self.parts.items()
            if said[part]
        )
        text = _SENTENCE_START.sub(lambda match: match[0].upper(), text)
        if self.abbreviates:
            text = _ABBREVIATED.sub(lambda match: _ABBREVIATIONS[match[0]], text)
        text = " ".join(
            _swapped(word, rng) if _may_slip(word) and rng.random() < self.typos else word
            for word in text.split(" ")
        )
        return text.upper() if self.capitals else text

    def _who(self, visit: Visit) -> str:
        if self.abbreviates:
            return f"{visit.age or '<1'}{'F' if visit.female else 'M'}"
        young, grown = ("girl", "woman") if visit.female else ("boy", "man")
        if visit.age == 0:
            return f"baby {young}"
        return f"{visit.age}-year-old {young if visit.age < 16 else grown}"

    def _time(self, visit: Visit) -> str:
        if self.abbreviates:
            return f"{visit.count}{_FRACTIONS[visit.unit]}"
        return f"{visit.count} {visit.unit}"


def _may_slip(word: str) -> bool:
    return len(word) > 5 and word.rstrip(".,").isalpha()


def _swapped(word: str, rng: random.Random) -> str:
    """Returns a word with two neighbouring inner letters swapped."""
    at = rng.randrange(1, len(word) - 3)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


ABBREVIATED = Habit(
    parts={
        "opening": ("{who} c/o {it} {time}.", "pt {who}, {it}, {time}."),
        "also": ("also {it}.", "+ {it}."),
        "denied": ("nil {it}.", "no {it}."),
        "history": ("PMH {it}.", "hx: {it}."),
        "remark": ("{it}.",),
    },
    abbreviates=True,
)
CAPITALS = Habit(
    parts={
        "opening": ("{it}, {time}. {who}.", "{who}. {it}. since {time}."),
        "history": ("background: {it}.", "known: {it}."),
        "also": ("{it}.", "{it} too."),
        "remark": ("{it}.",),
        "denied": ("no {it}.",),
    },
    capitals=True,
)
SENTENCES = Habit(
    parts={
        "opening": (
            "this {who} came to us with {it}, which began {time} ago.",
            "for {time} this {who} has been troubled by {it}.",
        ),
        "also": ("there is also {it}.", "on asking, {it} was mentioned as well."),
        "history": ("the past history includes {it}.", "there is a history of {it}."),
        "denied": ("there was no {it}.", "the patient denies {it}."),
        "remark": ("{it}.",),
    },
)
HURRIED = Habit(
    parts={
        "remark": ("{it}.",),
        "history": ("known {it},", "{it} in the past,"),
        "denied": ("no {it},", "denies {it},"),
        "opening": ("{who} now {it} for {time}", "{it} {time}, {who}"),
        "also": ("and {it}", "with {it}"),
    },
    typos=0.06,
)
