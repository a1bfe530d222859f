"""The synthetic hospitals' notes are equal everywhere, mixed as stated, and not too easy."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from cloister.data.hospital_words import COMPLAINTS, CONDITIONS, SHARED
from cloister.data.records import TextRecord
from cloister.data.synthetic import DEPARTMENTS, hospital_notes, training_notes

SITES = ("north", "south", "east", "west")
Halves = tuple[list[TextRecord], list[TextRecord]]


@pytest.fixture(scope="module")
def halves() -> Halves:
    return hospital_notes()


def of(site: str, notes: list[TextRecord]) -> list[TextRecord]:
    return [note for note in notes if note.site == site]


def test_another_process_with_another_hash_seed_writes_the_same_notes(halves: Halves) -> None:
    code = (
        "import hashlib; from cloister.data.synthetic import hospital_notes; "
        "print(hashlib.sha256(repr(hospital_notes()).encode()).hexdigest())"
    )
    expected = hashlib.sha256(repr(halves).encode()).hexdigest()
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_another_seed_writes_other_notes(halves: Halves) -> None:
    train, _ = hospital_notes(seed=1)
    assert not {note.text for note in train[:200]} & {note.text for note in halves[0][:200]}


def test_the_first_notes_are_those_of_the_whole(halves: Halves) -> None:
    assert training_notes(50) == halves[0][:50]
    assert training_notes(10**6) == halves[0]


def test_there_are_as_many_notes_as_promised(halves: Halves) -> None:
    train, test = halves
    # Set by the generator's number of persons; `data.public_records` = 1200 is declared from it.
    assert all(1200 <= len(of(site, train)) <= 1400 for site in SITES)
    assert all(210 <= len(of(site, test)) <= 310 for site in SITES)
    assert {note.site for note in train + test} == set(SITES)


def test_no_text_occurs_twice(halves: Halves) -> None:
    texts = [note.text for note in halves[0] + halves[1]]
    assert len(set(texts)) == len(texts)


def test_notes_are_short_lines_with_every_blank_filled_in(halves: Halves) -> None:
    notes = halves[0] + halves[1]
    assert not [note.text for note in notes if any(mark in note.text for mark in "{}|\n")]
    # About 1.4 word pieces of the quickstart's base a word: 32 pieces in the mean, 70 at most.
    words = [len(note.text.split()) for note in notes]
    assert 18 < mean(words) < 26
    assert max(words) < 60


def test_no_person_is_in_both_halves_or_two_hospitals(halves: Halves) -> None:
    train, test = halves
    assert not {note.person for note in train} & {note.person for note in test}
    assert all(str(note.person).startswith(f"{note.site}-p") for note in train + test)


def test_persons_have_one_to_six_notes_mostly_of_one_department(halves: Halves) -> None:
    by_person: dict[str | None, list[str]] = {}
    for note in halves[0]:
        by_person.setdefault(note.person, []).append(note.label)
    assert {len(labels) for labels in by_person.values()} == set(range(1, 7))
    assert 2.5 < mean(map(len, by_person.values())) < 3.0
    pairs = [labels[:2] for labels in by_person.values() if len(labels) > 1]
    # Both of two visits are to the person's own department with chance 0.6² = 0.36; independent
    # notes would agree in 0.13 or fewer.
    assert mean(one == other for one, other in pairs) > 0.33


def test_hospitals_see_different_illnesses_and_the_halves_the_same(halves: Halves) -> None:
    train, test = halves
    shares = {
        (site, half): Counter(note.label for note in of(site, notes))
        for site in SITES
        for half, notes in (("train", train), ("test", test))
    }

    def distance(one: Counter[str], other: Counter[str]) -> float:
        """Total variation."""
        return sum(abs(one[d] / one.total() - other[d] / other.total()) for d in DEPARTMENTS) / 2

    for site in SITES:
        assert set(shares[site, "train"]) == set(shares[site, "test"]) == set(DEPARTMENTS)
        # 260 notes of 94 persons stray by about ½·10·√(0.1·0.9/94)·√(2/π) = 0.12.
        assert distance(shares[site, "train"], shares[site, "test"]) < 0.2
        others = [distance(shares[site, "train"], shares[o, "train"]) for o in SITES if o != site]
        assert min(others) > 0.25


def test_hospitals_write_differently(halves: Halves) -> None:
    north, south, east, west = ([note.text for note in of(site, halves[0])] for site in SITES)
    assert mean("c/o" in text or text.startswith("Pt ") for text in north) == 1
    assert all(text == text.upper() for text in south)
    assert mean(len(text.split()) for text in east) > 1.3 * mean(len(text.split()) for text in west)
    assert not any(text == text.upper() for text in north + east + west)


def test_word_pairs_sort_notes_well_but_not_perfectly(halves: Halves) -> None:
    train, test = halves
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectorizer.fit_transform([note.text for note in train])
    sorter = LinearSVC().fit(features, [note.label for note in train])
    actual = [note.label for note in test]
    score = sorter.score(vectorizer.transform([note.text for note in test]), actual)
    assert 0.80 < score < 0.88
    assert Counter(actual).most_common(1)[0][1] / len(actual) < 0.2


def test_every_department_has_complaints_and_a_shared_one() -> None:
    assert len(DEPARTMENTS) == 10
    assert set(CONDITIONS) == set(DEPARTMENTS) - {"paediatrics"}
    for department in DEPARTMENTS:
        assert any(department in seen_by for _, seen_by in SHARED)
    seen = {department for _, departments in SHARED for department in departments}
    assert seen == set(COMPLAINTS)
