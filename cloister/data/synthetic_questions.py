"""Generates questions to four made-up hospitals, each with the leaflet that answers it: retrieval.

A leaflet is about one finding and names it in one wording. People ask in another wording, and name
findings that they do not have in the leaflets' own words, so shared words mislead; 2 % of the
questions have a wrong leaflet, as if a person had clicked on another. Every word comes from
`hospital_words`, so no real patient is in the questions.
"""

from __future__ import annotations

import random
import re

from cloister.data.hospital_words import COMPLAINTS, wordings
from cloister.data.records import TextRecord
from cloister.seeds import child_seed

# The questions of each hospital's people; they have the finding `{it}`, and not `{other}`.
_HOSPITALS = {
    "north": ("I've had {it} since last week. What should I do?", "{it}, no {other} - who to see?"),
    "south": ("PLEASE HELP: {it}! NOT {other}.", "WHERE DO I GO WITH {it}?"),
    "east": (
        "Good morning, my mother reports {it}, though she denies {other}. Whom may we ask?",
        "Could you please advise on {it}?",
    ),
    "west": ("{it} again, never had {other} tho", "hi got {it} any advice"),
}
# One to four questions a person, 2.5 in the mean: with five sixths of the persons in the training
# set about the 1,200 records of a hospital that recipes declare by default.
_PERSONS, _MOST_QUESTIONS = 580, 4
# Every sixth person is a test person, as in `synthetic`; near 1 a set would hide privacy's cost.
_TEST_EVERY = 6
_MISLABELLED = 0.02
_LEAFLET = (
    "Leaflet of the {department} department: {it}. What to look for, whom to ask, and when to come "
    "at once."
)


def _findings() -> dict[str, tuple[str, list[str]]]:
    """Returns department and wordings of each finding with several wordings, by leaflet id."""
    found = {}
    for department, entries in COMPLAINTS.items():
        for number, entry in enumerate(entries, 1):
            if len(wordings(entry)) > 1:
                found[f"{department}-{number}"] = (department, wordings(entry))
    return found


def leaflets() -> dict[str, str]:
    """Returns the public leaflets by id, each in the first wording of its finding."""
    return {
        name: _LEAFLET.format(department=department, it=_bare(words[0], "one"))
        for name, (department, words) in _findings().items()
    }


def hospital_questions(seed: int = 0) -> tuple[list[TextRecord], list[TextRecord]]:
    """Generates the questions of all hospitals: training and test set.

    Args:
        seed: Equal seeds give equal questions, in every process.

    Returns:
        Training questions (about 1,200 a hospital) and test questions (about 240 a hospital), in
        the order of hospitals and persons. A label is a leaflet's id. No person is in both.
    """
    train: list[TextRecord] = []
    test: list[TextRecord] = []
    findings = _findings()
    names = sorted(findings)
    for hospital, forms in _HOSPITALS.items():
        for number in range(_PERSONS):
            rng = random.Random(child_seed(seed, "question", hospital, number))
            half = test if number % _TEST_EVERY == _TEST_EVERY - 1 else train
            for _ in range(rng.randint(1, _MOST_QUESTIONS)):
                name, other = rng.sample(names, 2)
                side = rng.choice(("left", "right"))
                it = _bare(rng.choice(findings[name][1][1:]), side)
                text = rng.choice(forms).format(it=it, other=_bare(findings[other][1][0], side))
                label = rng.choice(names) if rng.random() < _MISLABELLED else name
                half.append(TextRecord(text, label, hospital, f"{hospital}-p{number:04d}"))
    return train, test


def _bare(wording: str, side: str) -> str:
    """Returns a wording without its article, for one side of the body."""
    return re.sub(r"^an? ", "", wording.format(side=side))
