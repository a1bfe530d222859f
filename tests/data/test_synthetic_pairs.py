"""The synthetic claims are balanced, and neither text alone shows the label."""

from collections import Counter

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from cloister.data.config import SYNTHETIC, DataConfig
from cloister.data.load import load
from cloister.data.records import PairRecord
from cloister.data.synthetic_pairs import RELATIONS, hospital_claims
from cloister.errors import DataError

Halves = tuple[list[PairRecord], list[PairRecord]]


@pytest.fixture(scope="module")
def halves() -> Halves:
    return hospital_claims()


def test_equal_seeds_write_equal_claims_and_others_do_not(halves: Halves) -> None:
    assert hospital_claims() == halves
    assert hospital_claims(seed=1)[0][:50] != halves[0][:50]


def test_no_person_is_in_both_halves_and_every_hospital_is(halves: Halves) -> None:
    train, test = ({record.person for record in half} for half in halves)
    assert not train & test
    for half in halves:
        assert {record.site for record in half} == {"north", "south", "east", "west"}


def test_relations_are_balanced(halves: Halves) -> None:
    counts = Counter(record.label for half in halves for record in half)
    # 2,400 draws of three: a share's deviation is 0.01.
    assert all(0.28 < counts[label] / counts.total() < 0.39 for label in RELATIONS)


def test_words_of_either_text_or_both_do_not_tell_the_relation(halves: Halves) -> None:
    train, test = halves
    for read in (
        lambda record: record.text,
        lambda record: record.text_b,
        lambda record: f"{record.text} {record.text_b}",
    ):
        vectors = TfidfVectorizer()
        model = LogisticRegression(max_iter=300)
        model.fit(vectors.fit_transform(map(read, train)), [record.label for record in train])
        score = model.score(vectors.transform(map(read, test)), [record.label for record in test])
        assert score < 0.45  # chance is 1/3; 400 test pairs, three deviations are 0.07


def test_the_generator_brings_pairs_where_pairs_are_read(halves: Halves) -> None:
    assert load(SYNTHETIC, "test", "pairs", DataConfig()) == halves[1]
    with pytest.raises(DataError, match="pairs of texts, which this task"):
        load(SYNTHETIC, "test", "tokens", DataConfig())
