"""Tests whether noise was used twice: finds copies at any lag, of any sign, order or place.

Three tests; each finds copies that the others miss:

    lags      correlation of the whole sequence with itself at every shift: copies that are scaled,
              negated or mixed with others, and copies with random signs
    runs      a few neighbouring values that repeat, forwards or backwards: exact copies of any
              part, however short, and pools of stored noise
    values    values that repeat more often than the grid explains: permuted copies

Math:
    Σ x_i x_{i+l} over n values that form chains of lengths m at lag l has log E exp(t Σ) =
    −½ Σ log D_m(t), D_m the determinant of the tridiagonal matrix of 1 and −t: (r₊^{m+1} −
    r₋^{m+1}) / (r₊ − r₋), r± = (1 ± √(1 − 4t²)) / 2. Chernoff's bound follows, exact for every lag.
    For v = √2 cos(2π Φ(x)), which forgets the sign, products of independent pairs have E exp(t v
    v′) ≤ exp(t²/2); a chain falls into two sets of such pairs, so it reaches s with probability at
    most exp(−s²/4n) (Cauchy-Schwarz).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.audit.statistics import Check, Floats, exact_check, p_check, smallest

# Most values whose lags are tested; a longer sequence is cut to a random window of this length.
MOST_VALUES = 2**22
# Number of most extreme lags whose bound is computed; the others' bounds are not smaller.
CANDIDATES = 200
# If two values are equal with a higher probability than this, longer runs are needed to find
# copies.
RARE = 2.0**-22
SHORT_RUN, LONG_RUN = 3, 25


def lag_p(rows: Floats) -> list[float]:
    """p-values of the correlations at every lag, of the values in order and of their sizes."""
    from scipy.special import ndtr

    flat = np.ascontiguousarray(rows).ravel()
    if len(flat) > MOST_VALUES:
        start = int(np.random.default_rng().integers(len(flat) - MOST_VALUES))
        flat = flat[start : start + MOST_VALUES]
    sizes = np.sqrt(2) * np.cos(2 * np.pi * ndtr(flat))
    return [_signed(flat), _unsigned(sizes)]


def _products(flat: Floats) -> Floats:
    """Σ x_i x_{i+l} for l = 1 … n − 1."""
    from scipy.fft import irfft, next_fast_len, rfft

    count = len(flat)
    size = next_fast_len(2 * count, real=True)
    spectrum = rfft(flat, size)
    sums: Floats = irfft(spectrum.real**2 + spectrum.imag**2, size)[1:count]
    return sums


def _signed(flat: Floats) -> float:
    count = len(flat)
    sums = np.abs(_products(flat))
    if not np.isfinite(sums).all():
        return float("nan")
    lags = np.arange(1, count)
    scores = sums / np.sqrt(count - lags)
    # Products of few values have heavy tails: their bound is computed for all of the last lags.
    best = np.argpartition(scores, -min(CANDIDATES, count - 1))[-CANDIDATES:]
    chosen = np.unique(np.concatenate([best, np.arange(max(0, count - 1 - CANDIDATES), count - 1)]))
    bounds = _chain_bounds(count, lags[chosen], sums[chosen])
    return float(min(1.0, bounds.min() * (count - 1)))


def _chain_bounds(count: int, lags: NDArray[np.int64], totals: Floats) -> Floats:
    """Bounds on P(|Σ x_i x_{i+lag}| ≥ total) for `count` values."""
    tilts = np.geomspace(1e-5, 0.499, 160)
    root = np.sqrt(1 - 4 * tilts**2)
    upper, ratio = (1 + root) / 2, (1 - root) / (1 + root)

    def log_determinant(length: NDArray[np.int64]) -> Floats:
        tail = np.log1p(-(ratio ** (length + 1.0))) - np.log1p(-ratio)
        return np.asarray(length * np.log(upper) + tail, dtype=np.float64)

    length, longer = np.divmod(count, lags[:, None])
    exponent = -0.5 * (
        longer * log_determinant(length + 1) + (lags[:, None] - longer) * log_determinant(length)
    )
    best = (exponent - tilts * totals[:, None]).min(axis=1)
    return np.asarray(np.minimum(1.0, 2 * np.exp(np.minimum(best, 0.0))), dtype=np.float64)


def _unsigned(sizes: Floats) -> float:
    sums = _products(sizes)
    left = np.arange(len(sizes) - 1, 0, -1)
    return smallest(np.minimum(1.0, 2 * np.exp(-np.square(sums) / (4 * left))))


def repeat_checks(
    values: Floats, deviation: float, grid: float | None, is_float32: bool = True
) -> list[Check]:
    """Checks that no noise value was used twice among the releases.

    Args:
        values: The released values, float32 or integers in float64, [T, d].
        deviation: Standard deviation of a value.
        grid: The values are multiples of it; None: only of float32's spacing.
        is_float32: Whether the values were rounded to float32, too.
    """
    flat = np.ascontiguousarray(np.abs(values), dtype=np.float64).ravel()
    twice, thrice = equal_chances(deviation, grid, is_float32)
    length = SHORT_RUN if twice < RARE else LONG_RUN
    runs = exact_check(
        "noise repeats",
        "runs of values that repeat, forwards or backwards",
        repeated_runs(flat, length),
    )
    p = [equal_p(flat, twice, thrice)]
    if grid is not None:
        p += low_bits_p(values, deviation, grid)
    law = "values that repeat, and fairness of the lowest bits of the grid"
    return [runs, p_check("noise values", law, p)]


def repeated_runs(flat: Floats, length: int) -> int:
    """How many runs of `length` neighbours (an odd number) repeat.

    A chance match needs half of a run to match (a run that overlaps its own reverse).
    """
    if len(flat) < length:
        return 0
    words = np.ascontiguousarray(flat).view(np.uint64)
    random = np.random.default_rng()
    factors = random.integers(1, 2**63, length, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    count = len(words) - length + 1
    forwards = np.zeros(count, dtype=np.uint64)
    backwards = np.zeros(count, dtype=np.uint64)
    mixed = _mixed(words)
    for i in range(length):
        piece = mixed[i : i + count]
        forwards += piece * factors[i]
        backwards += piece * factors[length - 1 - i]
    keys = np.sort(np.minimum(forwards, backwards))
    return int((keys[1:] == keys[:-1]).sum())


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes words, so that sums of neighbouring floats' bits do not collide (splitmix64)."""
    mixed = words + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def equal_chances(
    deviation: float, grid: float | None, is_float32: bool = True
) -> tuple[float, float]:
    """Probability that the sizes of two, and of three, independent values are equal.

    A float32 value in [2^e, 2^(e+1)) is a multiple of 2^(e−23), or of the grid if that is coarser:
    Σ p² = spacing · ∫ (2φ)², Σ p³ = spacing² · ∫ (2φ)³.
    """
    from scipy.special import ndtr

    top = int(np.ceil(np.log2(deviation))) + 4
    twice = thrice = 0.0
    for exponent in range(top - 60, top):
        low, high = 2.0**exponent / deviation, 2.0 ** (exponent + 1) / deviation
        floats = 2.0 ** (exponent - 23) if is_float32 or grid is None else 0.0
        spacing = max(floats, grid or 0.0) / deviation
        # ∫ (2φ)² = (2/√π) · mass of N(0, ½); ∫ (2φ)³ = 8 / (2π √3) · mass of N(0, ⅓).
        two = 2 / np.sqrt(np.pi) * (ndtr(high * np.sqrt(2)) - ndtr(low * np.sqrt(2)))
        three = 4 / (np.pi * np.sqrt(3)) * (ndtr(high * np.sqrt(3)) - ndtr(low * np.sqrt(3)))
        twice += spacing * two
        thrice += spacing**2 * three
    return float(twice), float(thrice)


def equal_p(flat: Floats, twice: float, thrice: float) -> float:
    """p-value of the number of pairs of equal sizes; more than expected refute."""
    from scipy import stats

    count = len(flat)
    ordered = np.sort(flat)
    ends = np.flatnonzero(np.diff(ordered, append=np.inf))
    runs = np.diff(ends, prepend=-1).astype(np.float64)
    pairs = float((runs * (runs - 1) / 2).sum())
    expected = count * (count - 1) / 2 * twice
    # Pairs that share a value are dependent: so much more variance than Poisson's.
    extra = 1 + 2 * (count - 2) * max(thrice - twice**2, 0.0) / twice
    return float(stats.poisson.sf(np.ceil(pairs / extra) - 1, expected / extra))


def low_bits_p(values: Floats, deviation: float, grid: float) -> list[float]:
    """p-values of the lowest bits (at most eight) as fair coins, for values that float32 holds
    exactly.

    From a deviation of 2³ steps of a bit on, its law differs from a fair coin's by less than
    exp(−2π² 2⁴) = 10⁻¹³⁷.
    """
    from scipy import stats

    count = min(8, int(np.log2(deviation / grid)) - 3)
    steps = np.rint(np.asarray(values, dtype=np.float64).ravel() / grid)
    exact = steps[np.abs(steps) < 2**24].astype(np.int64)
    ones = np.array([((exact >> bit) & 1).sum() for bit in range(count)])
    below = stats.binom.cdf(ones, len(exact), 0.5)
    above = stats.binom.sf(ones - 1, len(exact), 0.5)
    return [float(p) for p in np.minimum(1.0, 2 * np.minimum(below, above))]
