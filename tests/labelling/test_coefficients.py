"""Coefficients of agreement against published tables, scikit-learn and plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from cloister.labelling.coefficients import (
    Coefficient,
    alpha,
    cohen,
    counts_of,
    fleiss,
    interval_alpha,
    raw,
)
from tests.support.examples import tries

# Krippendorff 2011, section C: four observers, twelve units, with what they left out.
OBSERVED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [unit for unit in zip(*OBSERVED, strict=True) if sum(v is not None for v in unit) > 1]
# Fleiss 1971's kind of table, 14 raters a row: Wikipedia, "Fleiss' kappa", worked example.
RATED = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ],
    dtype=float,
)
answers = st.lists(st.sampled_from("abc"), min_size=2, max_size=2)


def test_alpha_is_krippendorff_s() -> None:
    # The published values have three digits.
    assert alpha(counts_of(UNITS)).estimate() == pytest.approx(0.743, abs=5e-4)
    assert interval_alpha(UNITS).estimate() == pytest.approx(0.849, abs=5e-4)


def test_kappa_of_many_is_fleiss() -> None:
    assert fleiss(RATED).estimate() == pytest.approx(0.210, abs=5e-4)


@settings(max_examples=tries(60))
@given(st.lists(answers, min_size=2, max_size=20))
def test_kappa_of_two_is_scikit_learn_s(judgements: list[list[str]]) -> None:
    first, second = zip(*judgements, strict=True)
    found = cohen(judgements).estimate()
    if len({*first, *second}) == 1:
        assert found is None  # chance explains all: 0/0
    else:
        assert found == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert raw(counts_of(judgements)).estimate() == pytest.approx(np.mean(np.equal(first, second)))


def slow_alpha(judgements: list[list[float | None]], power: int) -> float | None:
    """α by its definition: every pair of answers looked at; power 0 compares, 2 squares."""

    def distance(a: float, b: float) -> float:
        return (a - b) ** 2 if power else float(a != b)

    rows = [[a for a in row if a is not None] for row in judgements]
    everything = [a for row in rows for a in row]
    total = len(everything)
    observed = sum(
        distance(a, b) / (len(row) - 1) for row in rows for a, b in itertools.permutations(row, 2)
    )
    expected = sum(distance(a, b) for a, b in itertools.permutations(everything, 2)) / (total - 1)
    return None if expected == 0 else 1 - observed / expected


some = st.lists(st.one_of(st.none(), st.integers(0, 3).map(float)), min_size=3, max_size=3)
several = st.lists(
    some.filter(lambda row: sum(a is not None for a in row) > 1), min_size=1, max_size=8
)


@settings(max_examples=tries(60))
@given(several)
def test_alpha_with_gaps_is_that_of_every_pair(judgements: list[list[float | None]]) -> None:
    for found, power in ((alpha(counts_of(judgements)), 0), (interval_alpha(judgements), 2)):
        slow = slow_alpha(judgements, power)
        assert found.estimate() == (None if slow is None else pytest.approx(slow, abs=1e-9))


@settings(max_examples=tries(40))
@given(st.lists(answers, min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_a_resample_is_the_estimate_of_what_was_drawn(
    judgements: list[list[str]], seed: int
) -> None:
    drawn = np.random.default_rng(seed).integers(0, len(judgements), len(judgements))
    weights = np.bincount(drawn, minlength=len(judgements)).astype(float)[None, :]

    def made(chosen: list[list[str]]) -> list[Coefficient]:
        counts = counts_of(chosen)
        return [raw(counts), cohen(chosen), fleiss(counts), alpha(counts)]

    again = made([judgements[at] for at in drawn])
    for whole, part in zip(made(judgements), again, strict=True):
        resampled, direct = whole.resampled(weights)[0], part.estimate()
        assert (direct is None and np.isnan(resampled)) or resampled == pytest.approx(direct)
