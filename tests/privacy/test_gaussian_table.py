"""The table draws the discrete Gaussian, by its integers and by its samples."""

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.stats import chi2, kstest

from cloister.privacy import gaussian_table
from cloister.privacy.entropy import OsEntropy, Words
from cloister.privacy.gaussian_table import (
    ENTRY_BITS,
    LARGEST,
    REACH,
    WEIGHT_BITS,
    DiscreteGaussian,
)

ALPHA = 1e-6  # one false alarm in a million runs
SMALL = [0.1, 0.7, 3.9, 4.0, 32.0, 77.7, 2000.5]


def exact(deviation: float, values: np.ndarray) -> np.ndarray:
    """Probabilities by the definition, in 60 digits, then as float64."""
    with mpmath.workdps(60):
        twice = 2 * mpmath.mpf(deviation) ** 2
        most = math.ceil(17 * deviation) + 1  # exp(−17²/2) = 10⁻⁶³
        total = 1 + 2 * mpmath.fsum(mpmath.exp(-(k**2) / twice) for k in range(1, most))
        weights = {abs(int(k)): mpmath.exp(-(int(k) ** 2) / twice) / total for k in values}
        return np.array([float(weights[abs(int(k))]) for k in values])


def drawn_law(table: DiscreteGaussian) -> tuple[np.ndarray, np.ndarray]:
    """Every integer with its probability: the entries', and what the rejection makes of the rest.

    A proposal is a cell by weight and a place; it is kept with probability room / weight. So what
    is kept is proportional to the room under the height, whatever the weights are.
    """
    values = np.concatenate([np.arange(table.width) + cell * table.width for cell in table.cells])
    of_cell = np.repeat(np.arange(len(table.cells)), table.width)
    entries = table.counts[of_cell] / (2**ENTRY_BITS * table.width)
    covered = table.counts[of_cell] * 2 ** (WEIGHT_BITS - ENTRY_BITS)
    room = table.heights(values) - covered
    assert (room >= 0).all()
    assert (room <= table.weights[of_cell]).all()
    return values, entries + table.left_over * room / room.sum()


def error(table: DiscreteGaussian, deviation: float) -> float:
    """Largest relative error of a probability above 10⁻³⁰, and total variation if that is more."""
    values, found = drawn_law(table)
    wanted = exact(deviation, values)
    seen = wanted > 1e-30
    relative = np.abs(found[seen] / wanted[seen] - 1).max()
    return float(max(relative, np.abs(found - wanted).sum() / 2))


@pytest.mark.parametrize("deviation", SMALL)
def test_its_probabilities_are_the_definition_s(deviation: float) -> None:
    # float64 in this test; what is drawn is decided in 80 digits where float64 is too coarse.
    assert error(DiscreteGaussian(deviation), deviation) < 1e-12


@pytest.mark.parametrize("deviation", [32.0, 2000.5])
def test_a_biased_table_is_caught(deviation: float) -> None:
    table = DiscreteGaussian(deviation)
    middle = len(table.cells) // 2
    table.counts[middle] -= 1  # one entry of 65,536 names another cell than it should
    table.counts[middle - 9] += 1
    with pytest.raises(AssertionError):  # more than its probability
        drawn_law(table)
    assert error(DiscreteGaussian(deviation), deviation * (1 + 1e-9)) > 1e-10
    assert error(DiscreteGaussian(deviation / 2), deviation) > 0.1


@pytest.mark.parametrize("deviation", [*SMALL, 2.0**30 * 1.3, 2.0**44, LARGEST * 0.999])
def test_weights_hold_the_room_of_every_integer_and_little_is_left_over(deviation: float) -> None:
    table = DiscreteGaussian(deviation)
    first, last = table.cells * table.width, (table.cells + 1) * table.width - 1
    for values in (first, last):
        room = table.heights(values) - table.counts * 2 ** (WEIGHT_BITS - ENTRY_BITS)
        assert (room >= 0).all()
        assert (room <= table.weights).all()
    assert 0 < table.left_over < 0.012
    assert first[0] < -REACH * deviation
    assert last[-1] > REACH * deviation
    assert table.width == 1 or table.width <= deviation / 64


def from_seed(seed: int) -> Callable[[int], Words]:
    generator = np.random.default_rng(seed)
    return lambda count: generator.integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize(("deviation", "draws"), [(3.9, 20), (32.0, 200), (2.0**30 * 1.3, 200)])
def test_floats_decide_as_decimals_do(
    deviation: float, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words give the same draws if every proposal is decided in decimals."""
    table = DiscreteGaussian(deviation)
    by_float = table._rest(draws, from_seed(3))
    asked: list[int] = []
    keeps = DiscreteGaussian._keeps

    def counted(self: DiscreteGaussian, value: int, cell: int, uniform: int) -> bool:
        asked.append(value)
        return keeps(self, value, cell, uniform)

    first = from_seed(3)
    fine = from_seed(4)
    monkeypatch.setattr(DiscreteGaussian, "_keeps", counted)
    monkeypatch.setattr(gaussian_table, "CLOSE", 2.0)
    by_decimals = table._rest(draws, lambda count: first(count) if count > 3 else fine(count))
    assert len(asked) > draws
    assert np.array_equal(by_float, by_decimals)


def test_a_uniform_between_two_floats_is_decided_by_its_further_bits() -> None:
    table = DiscreteGaussian(40.0)
    cell = int(np.flatnonzero(table.cells == 7)[0])
    with mpmath.workdps(70):
        height = mpmath.mpf(2) ** WEIGHT_BITS * mpmath.exp(mpmath.mpf(-49) / 3200)
        height /= mpmath.sqrt(2 * mpmath.pi) * 40
        covered = int(table.counts[cell]) * 2 ** (WEIGHT_BITS - ENTRY_BITS)
        border = int((height - covered) * mpmath.mpf(2) ** 245 / int(table.weights[cell]))
    assert table._keeps(7, cell, border - 2**40)
    assert not table._keeps(7, cell, border + 2**40)
    assert Fraction(2**40, 2**245) < Fraction(1, 10**61)


@pytest.mark.parametrize("deviation", [40.0, 2.0**30 * 1.3, 2.0**44])
@pytest.mark.parametrize(("far", "kept"), [(9, True), (11, False), (12.5, False)])
def test_far_out_a_float64_uniform_is_too_coarse_to_keep_a_proposal(
    deviation: float, far: float, kept: bool
) -> None:
    """There the room is less than the uniform's step: one of 0 is no reason to keep it."""
    table = DiscreteGaussian(deviation)
    cell = int(np.flatnonzero(table.cells == int(far * deviation) // table.width)[0])
    asked: list[int] = []

    def words(count: int) -> Words:
        if count == 3:  # the further bits: just below the next step
            asked.append(count)
            return np.full(3, 2**64 - 1, dtype=np.uint64)
        # This cell, its first place, a height of 0; then a cell near the middle, which is kept.
        at = len(table.cells) // 2 + 5 if asked else cell
        lots = np.zeros((3, count // 3), dtype=np.uint64)
        lots[0] = int(table._ends[at - 1]) << (64 - table._weight_bits)
        return lots.reshape(-1)

    found = int(table._rest(1, words)[0])
    assert (found == table.cells[cell] * table.width) == kept
    assert bool(asked) == (not kept)


def statistic(drawn: np.ndarray, deviation: float, cells: int = 60) -> float:
    """P-value of χ² over cells of about equal probability, of the rounded continuous law."""
    counts, edges = np.histogram(drawn / deviation, bins=np.linspace(-4, 4, cells))
    wanted = np.diff([0.5 * math.erfc(-e / math.sqrt(2)) for e in edges]) * len(drawn)
    return float(chi2.sf(((counts - wanted) ** 2 / wanted).sum(), cells - 2))


@pytest.mark.parametrize("deviation", [2.0**30 * 1.3, 2.0**44])
def test_draws_are_gaussian_in_the_large_and_uniform_in_the_small(deviation: float) -> None:
    drawn = OsEntropy().gaussian(deviation, 1_000_000)
    assert kstest(drawn / deviation, "norm").pvalue > ALPHA
    assert statistic(drawn, deviation) > ALPHA
    low = np.bincount(drawn & 255, minlength=256)
    assert chi2.sf(((low - 1e6 / 256) ** 2 / (1e6 / 256)).sum(), 255) > ALPHA
    fourth = float(((drawn / deviation) ** 4).mean())
    assert abs(fourth - 3) < 5 * math.sqrt(96 / 1e6)
    assert statistic(OsEntropy().gaussian(deviation * 0.99, 1_000_000), deviation) < ALPHA


def test_what_the_table_leaves_over_is_drawn_by_its_own_law() -> None:
    """Where the rest is drawn wrongly the whole is off by a hundredth of it: seen on the rest."""
    table = DiscreteGaussian(50.0)
    values, _ = drawn_law(table)
    room = table.heights(values) - np.repeat(table.counts, table.width) * 2.0**16
    wanted = room / room.sum() * 200_000
    found = table._rest(200_000, lambda count: from_os(count))
    seen = np.bincount(found - values[0], minlength=len(values))
    good = wanted > 20
    apart = ((seen - wanted)[good] ** 2 / wanted[good]).sum()
    assert chi2.sf(apart, int(good.sum()) - 1) > ALPHA
    whole = np.bincount(table.draw(200_000, from_os) - values[0], minlength=len(values))
    assert ((whole - wanted)[good] ** 2 / wanted[good]).sum() > chi2.isf(ALPHA, int(good.sum()))


def from_os(count: int) -> Words:
    return np.random.default_rng().integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf, LARGEST])
def test_a_deviation_that_no_table_holds_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="deviation"):
        DiscreteGaussian(deviation)
