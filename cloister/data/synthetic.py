"""Generates triage notes of four made-up hospitals, with departments as labels: the quickstart.

They resemble real notes. Hospitals see different illnesses and write differently. A person comes
more than once, with the same history and often the same complaint, so notes are not independent.
Departments share symptoms. Notes also name findings that a person does not have, and earlier
illnesses; 2 % of the labels are wrong. Every word comes from `hospital_words` and
`hospital_writing`, so no real patient is in the notes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from cloister.data.hospital_words import (
    CHILD_CONDITIONS,
    COMMON_CONDITIONS,
    COMPLAINTS,
    CONDITIONS,
    REMARKS,
    SHARED,
    wordings,
)
from cloister.data.hospital_writing import (
    ABBREVIATED,
    CAPITALS,
    HURRIED,
    SENTENCES,
    Habit,
    Unit,
    Visit,
)
from cloister.data.records import TextRecord
from cloister.seeds import child_seed

DEPARTMENTS = tuple(COMPLAINTS)
_OF_ADULTS = tuple(CONDITIONS)

# Shares of notes. Together they keep a linear classifier of words and word pairs between 0.80 and
# 0.88 accuracy (held by tests/data/test_synthetic.py): near 1 or near chance, a set would hide what
# privacy costs.
_SHARED_LEAD = 0.30  # the main complaint is one that several departments see
_ALSO = 0.50  # a second finding is written
_SHARED_ALSO = 0.50  # … which several departments see
_HISTORY = 0.55
_DENIED = 0.45  # a finding of any department is denied
_SHARED_DENIED = 0.50  # … which several departments see
_REMARK = 0.60
_SAME_AGAIN = 0.40  # a later visit to a department is for the first one's complaint
_OWN_DEPARTMENT = 0.60  # a visit leads to the department of the person's main illness
_MISLABELLED = 0.02

# Weights of 1, 2, … 6 visits of a person; 2.75 visits in the mean.
_VISITS = (25, 25, 20, 15, 10, 5)
# Every sixth person is a test person: about 1 000 notes of 6 000.
_TEST_EVERY = 6


@dataclass(frozen=True, slots=True)
class _Hospital:
    name: str
    habit: Habit
    persons: int
    mix: tuple[int, ...]  # weights in the order of DEPARTMENTS


# Columns: cardiology, dermatology, ent, gastroenterology, neurology, orthopaedics, paediatrics,
# psychiatry, respiratory, urology.
_HOSPITALS = (
    _Hospital("north", ABBREVIATED, 575, (24, 4, 4, 10, 8, 8, 6, 6, 22, 8)),  # heart and lungs
    _Hospital("south", CAPITALS, 550, (8, 6, 4, 12, 14, 30, 6, 4, 6, 10)),  # injuries
    _Hospital("east", SENTENCES, 590, (4, 16, 14, 6, 6, 8, 28, 6, 8, 4)),  # children and skin
    _Hospital("west", HURRIED, 565, (8, 4, 6, 18, 14, 4, 4, 22, 6, 14)),  # minds and bellies
)
# Where children are seen outside paediatrics.
_CHILDREN_TOO = ("paediatrics", "ent", "orthopaedics", "dermatology")


@dataclass(frozen=True, slots=True)
class _Person:
    age: int
    female: bool
    department: str
    conditions: tuple[str, ...]


def hospital_notes(seed: int = 0) -> tuple[list[TextRecord], list[TextRecord]]:
    """Generates the notes of all synthetic hospitals: training and test set.

    Args:
        seed: Equal seeds give equal notes, in every process.

    Returns:
        Training notes (about 1300 a hospital) and test notes (about 260 a hospital), in the order
        of hospitals and persons. No person is in both, and no text occurs twice.
    """
    train: list[TextRecord] = []
    test: list[TextRecord] = []
    for is_tested, notes in _notes_by_person(seed):
        (test if is_tested else train).extend(notes)
    return train, test


def training_notes(count: int, seed: int = 0) -> list[TextRecord]:
    """Returns the first training notes of `hospital_notes`, and makes no other."""
    trained = (notes for is_tested, notes in _notes_by_person(seed) if not is_tested)
    return list(islice(chain.from_iterable(trained), count))


def _notes_by_person(seed: int) -> Iterator[tuple[bool, list[TextRecord]]]:
    """Yields, for each person, whether it is a test person, and the person's notes."""
    written: set[str] = set()
    for hospital in _HOSPITALS:
        for number in range(hospital.persons):
            rng = random.Random(child_seed(seed, "hospital", hospital.name, number))
            notes = _notes_of_one(hospital, f"{hospital.name}-p{number:04d}", written, rng)
            yield number % _TEST_EVERY == _TEST_EVERY - 1, notes


def _notes_of_one(
    hospital: _Hospital, name: str, written: set[str], rng: random.Random
) -> list[TextRecord]:
    """Returns all notes of one person; no text of `written` is repeated, and theirs are added."""
    person = _person(hospital, rng)
    first_complaints: dict[str, str] = {}
    notes: list[TextRecord] = []
    visits = rng.choices(range(1, len(_VISITS) + 1), _VISITS)[0]
    while len(notes) < visits:
        department = _department(hospital, person, rng)
        text = hospital.habit.write(_visit(person, department, first_complaints, rng), rng)
        if text in written:
            continue
        written.add(text)
        wrong = rng.random() < _MISLABELLED
        label = rng.choice([d for d in DEPARTMENTS if d != department]) if wrong else department
        notes.append(TextRecord(text, label, hospital.name, name))
    return notes


def _person(hospital: _Hospital, rng: random.Random) -> _Person:
    department = rng.choices(DEPARTMENTS, hospital.mix)[0]
    female = rng.random() < 0.5
    if department == "paediatrics":
        conditions = rng.sample(CHILD_CONDITIONS, rng.choice((0, 1, 1)))
        return _Person(rng.randrange(7), female, department, tuple(conditions))
    anyone_s = [*COMMON_CONDITIONS, *(c for some in CONDITIONS.values() for c in some)]
    conditions = rng.sample(anyone_s, rng.choice((0, 1, 1, 2)))
    if rng.random() < 0.5:
        conditions.append(rng.choice(CONDITIONS[department]))
    return _Person(rng.randrange(30, 95), female, department, tuple(dict.fromkeys(conditions)))


def _department(hospital: _Hospital, person: _Person, rng: random.Random) -> str:
    if rng.random() < _OWN_DEPARTMENT:
        return person.department
    if person.department == "paediatrics":
        return rng.choice(_CHILDREN_TOO)
    adult = [w * (d != "paediatrics") for d, w in zip(DEPARTMENTS, hospital.mix, strict=True)]
    return rng.choices(DEPARTMENTS, adult)[0]


def _visit(
    person: _Person, department: str, first_complaints: dict[str, str], rng: random.Random
) -> Visit:
    complaint = finding(department, _SHARED_LEAD, rng)
    first = first_complaints.setdefault(department, complaint)
    if rng.random() < _SAME_AGAIN:
        complaint = first
    also = finding(department, _SHARED_ALSO, rng)
    denied = finding(rng.choice(_OF_ADULTS), _SHARED_DENIED, rng)
    history = rng.sample(person.conditions, min(len(person.conditions), 2))
    units: tuple[Unit, ...] = ("hours", "days", "days", "weeks", "months")
    return Visit(
        age=person.age,
        female=person.female,
        complaint=said(complaint, rng),
        also=said(also, rng) if rng.random() < _ALSO and also != complaint else None,
        count=rng.randrange(2, 10),
        unit=rng.choice(units),
        history=tuple(history) if rng.random() < _HISTORY else (),
        denied=(
            said(denied, rng)
            if rng.random() < _DENIED and denied not in (complaint, also)
            else None
        ),
        remark=rng.choice(REMARKS) if rng.random() < _REMARK else None,
    )


def finding(department: str, shared: float, rng: random.Random) -> str:
    """Draws a complaint of a department; with probability `shared`, others see it too."""
    if rng.random() < shared:
        return rng.choice([entry for entry, seen_by in SHARED if department in seen_by])
    return rng.choice(COMPLAINTS[department])


def said(entry: str, rng: random.Random) -> str:
    """Draws one of an entry's wordings."""
    return rng.choice(wordings(entry)).format(side=rng.choice(("left", "right")))
