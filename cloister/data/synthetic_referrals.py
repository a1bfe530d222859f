"""Generates referral letters to four made-up hospitals, with the departments that are needed.

The labels are no, one, two or three departments: a finding of each is in the letter, in the
hospital's style. Findings that the person does not have, and illnesses of the past, belong to
further departments and are no reason to be seen there; 3 % of the letters lack one of their
departments, as if a secretary had forgotten it. Every word comes from `hospital_words` and
`hospital_writing`.
"""

from __future__ import annotations

import random

from cloister.data.hospital_words import COMPLAINTS, CONDITIONS, REMARKS
from cloister.data.hospital_writing import (
    ABBREVIATED,
    CAPITALS,
    HURRIED,
    SENTENCES,
    Habit,
    Unit,
    Visit,
)
from cloister.data.records import LabelsRecord
from cloister.data.synthetic import DEPARTMENTS, finding, said
from cloister.seeds import child_seed

_HOSPITALS = {"north": ABBREVIATED, "south": CAPITALS, "east": SENTENCES, "west": HURRIED}
_PERSONS = 800
# Weights of 1, 2 and 3 letters of a person, 1.8 in the mean: with five sixths of the persons in the
# training set about the 1,200 records of a hospital that recipes declare by default.
_LETTERS = (45, 30, 25)
# Weights of no, one, two and three departments.
_DEPARTMENTS = (15, 40, 30, 15)
# Shares, as in `synthetic`: a finding that several departments see, a denied finding, a history, a
# remark, a wrong label.
_SHARED, _DENIED, _HISTORY, _REMARK, _FORGOTTEN = 0.25, 0.50, 0.55, 0.50, 0.03
# Subjects of a letter that needs no department.
_ROUTINE = (
    "a repeat prescription",
    "a routine check",
    "a certificate for work",
    "a question about travel vaccines",
    "a blood pressure reading that was normal",
)
# Every sixth person is a test person.
_TEST_EVERY = 6


def referral_letters(seed: int = 0) -> tuple[list[LabelsRecord], list[LabelsRecord]]:
    """Generates the letters of all hospitals: training and test set.

    Args:
        seed: Equal seeds give equal letters, in every process.

    Returns:
        Training letters (about 1,200 a hospital) and test letters (about 240 a hospital), in the
        order of hospitals and persons. No person is in both.
    """
    train: list[LabelsRecord] = []
    test: list[LabelsRecord] = []
    for hospital, habit in _HOSPITALS.items():
        for number in range(_PERSONS):
            rng = random.Random(child_seed(seed, "referral", hospital, number))
            half = test if number % _TEST_EVERY == _TEST_EVERY - 1 else train
            age, female = rng.randrange(18, 95), rng.random() < 0.5
            for _ in range(rng.choices((1, 2, 3), _LETTERS)[0]):
                text, labels = _letter(habit, age, female, rng)
                half.append(LabelsRecord(text, labels, hospital, f"{hospital}-p{number:04d}"))
    return train, test


def _letter(
    habit: Habit, age: int, female: bool, rng: random.Random
) -> tuple[str, tuple[str, ...]]:
    count = rng.choices(range(len(_DEPARTMENTS)), _DEPARTMENTS)[0]
    mixed = rng.sample(DEPARTMENTS, len(DEPARTMENTS))
    chosen, others = mixed[:count], mixed[count:]
    found = [said(finding(one, _SHARED, rng), rng) for one in chosen] or [rng.choice(_ROUTINE)]
    units: tuple[Unit, ...] = ("hours", "days", "days", "weeks", "months")
    past = [one for one in others if one in CONDITIONS]
    visit = Visit(
        age=age,
        female=female,
        complaint=found[0],
        also=" and ".join(found[1:]) or None,
        count=rng.randrange(2, 10),
        unit=rng.choice(units),
        history=(rng.choice(CONDITIONS[rng.choice(past)]),) if rng.random() < _HISTORY else (),
        denied=said(rng.choice(COMPLAINTS[others[0]]), rng) if rng.random() < _DENIED else None,
        remark=rng.choice(REMARKS) if rng.random() < _REMARK else None,
    )
    if chosen and rng.random() < _FORGOTTEN:
        chosen = chosen[1:]
    return habit.write(visit, rng), tuple(sorted(chosen))
