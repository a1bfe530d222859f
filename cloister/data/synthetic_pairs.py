"""Generates claims about notes of four made-up hospitals: the built-in pairs of texts.

The first text is a note; the second claims, in other words, that its person has or does not have a
finding. The label says whether the note entails the claim, contradicts it or leaves
it open (Bowman et al. 2015, arXiv:1508.05326, section 2). Claims of presence and of absence are
equally frequent under every label, so that neither text alone shows the label. Every word comes
from `hospital_words` and `hospital_writing`, so that no real patient is in them.
"""

from __future__ import annotations

import random

from cloister.data.hospital_words import COMPLAINTS, REMARKS, wordings
from cloister.data.hospital_writing import (
    ABBREVIATED,
    CAPITALS,
    HURRIED,
    SENTENCES,
    Habit,
    Unit,
    Visit,
)
from cloister.data.records import PairRecord
from cloister.seeds import child_seed

RELATIONS = ("contradicted", "entailed", "open")

_HABITS = {"north": ABBREVIATED, "south": CAPITALS, "east": SENTENCES, "west": HURRIED}
# 1 to 3 claims a person: about 500 pairs a hospital for training and 100 for testing.
_PERSONS, _MOST_CLAIMS = 300, 3
# Every sixth person is a test person, as in `synthetic`.
_TEST_EVERY = 6
# As in `synthetic`: near 1 a set would hide what privacy costs.
_MISLABELLED = 0.02

_PRESENT = ("The patient has {it}.", "There is {it}.", "{it} was found.")
_ABSENT = ("The patient does not have {it}.", "There is no {it}.", "No {it} was found.")
_UNITS: tuple[Unit, ...] = ("hours", "days", "weeks", "months")


def hospital_claims(seed: int = 0) -> tuple[list[PairRecord], list[PairRecord]]:
    """Generates the pairs of all synthetic hospitals: training and test set.

    Args:
        seed: Equal seeds give equal pairs, in every process.

    Returns:
        Training and test pairs, in the order of hospitals and persons. No person is in both.
    """
    train: list[PairRecord] = []
    test: list[PairRecord] = []
    for site, habit in _HABITS.items():
        for number in range(_PERSONS):
            rng = random.Random(child_seed(seed, "claims", site, number))
            half = test if number % _TEST_EVERY == _TEST_EVERY - 1 else train
            for _ in range(rng.randint(1, _MOST_CLAIMS)):
                half.append(_pair(site, habit, f"{site}-p{number:04d}", rng))
    return train, test


def _pair(site: str, habit: Habit, person: str, rng: random.Random) -> PairRecord:
    """Makes one note and a claim about it."""
    department = rng.choice(tuple(COMPLAINTS))
    # Two findings that the person has, one that the note denies, one that it does not speak of.
    own = rng.sample(COMPLAINTS[department], 4)
    has, denied, unsaid = own[:2], own[2], own[3]
    note = habit.write(
        Visit(
            age=rng.randrange(30, 95),
            female=rng.random() < 0.5,
            complaint=_said(has[0], rng),
            also=_said(has[1], rng),
            count=rng.randrange(2, 10),
            unit=rng.choice(_UNITS),
            history=(),
            denied=_said(denied, rng),
            remark=rng.choice(REMARKS) if rng.random() < 0.5 else None,
        ),
        rng,
    )
    label, is_present = rng.choice(RELATIONS), rng.random() < 0.5
    if label == "open":
        finding = unsaid
    else:
        finding = rng.choice(has) if is_present == (label == "entailed") else denied
    it = _said(finding, rng)
    form = rng.choice(_PRESENT if is_present else _ABSENT)
    claim = form.format(it=it if is_present else it.removeprefix("a ").removeprefix("an "))
    if rng.random() < _MISLABELLED:
        label = rng.choice([other for other in RELATIONS if other != label])
    return PairRecord(note, label, site, person, text_b=claim[0].upper() + claim[1:])


def _said(entry: str, rng: random.Random) -> str:
    return rng.choice(wordings(entry)).format(side=rng.choice(("left", "right")))
