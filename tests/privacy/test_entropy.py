"""Normals near the origin and in the tails: the law that both noises inherit from one generator.

A disc of radius 3·10⁻⁸ is hit once in 10¹⁵ draws, so these tests do not wait for it: they fix the
upper bits of the generator's words, which are uniform, and look at the law of what the others give.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cloister.privacy import entropy as generator
from cloister.privacy.clipping import empty_sum
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import OsEntropy, Uniforms, box_muller
from cloister.privacy.noise import add_noise

ALPHA = 1e-6  # one false alarm in a million runs
PAIRS = 20_000
SIGMA = 40.0
# Distances below 2⁻⁵¹ from 1: radii below √(2 · 2⁻⁵¹) = 3·10⁻⁸.
BITS = 50
LARGEST = math.sqrt(2 * 2.0 ** -(BITS + 1))


def near_the_origin() -> np.ndarray:
    """Words whose radii are below LARGEST: 50 bits of the distance from 1 are 0."""
    words = np.random.default_rng(7).integers(0, 2**64, (3, PAIRS), dtype=np.uint64)
    words[0] >>= np.uint64(BITS)
    words[2] &= ~np.uint64(1)  # measured from 1
    return words.reshape(-1)


def near_the_origin_as_it_was() -> np.ndarray:
    """The same discs for `with_holes`, whose radius is small where its uniform is near 1."""
    words = np.random.default_rng(7).integers(0, 2**64, (3, PAIRS), dtype=np.uint64)
    words[0] |= ~(np.uint64(2**64 - 1) >> np.uint64(BITS + 1))
    return words.reshape(-1)


def with_holes(words: np.ndarray) -> Uniforms:
    """The transform that was used before: one uniform for both ends, 53 bits near 1."""
    coarse, fine, turn = (words.reshape(3, -1) >> np.uint64(11)).astype(np.float64) / 2**53
    radius = np.sqrt(-2.0 * np.log(coarse + (fine + 2**-53) / 2**53))
    return np.concatenate(
        [radius * np.cos(2 * math.pi * turn), radius * np.sin(2 * math.pi * turn)]
    )


class Forced(OsEntropy):
    """Private entropy whose normals come of chosen words."""

    def __init__(self, normals: Uniforms) -> None:
        self._normals = normals

    def normal(self, count: int) -> Uniforms:
        return np.resize(self._normals, count)


def fills_the_disc(x: np.ndarray, y: np.ndarray, radius: float) -> bool:
    """P(R < r) = r²/2 over the disc's own: r²/radius² is uniform, and so is the angle."""
    squares = (x**2 + y**2) / radius**2
    angles = np.arctan2(y, x) / (2 * math.pi) + 0.5
    return bool(
        stats.kstest(squares, "uniform").pvalue > ALPHA
        and stats.kstest(angles, "uniform").pvalue > ALPHA
        # Of so many draws in a disc of millions of lattice points hardly two radii are equal.
        and len(np.unique(squares)) > PAIRS / 4
    )


def continuous(normals: Uniforms) -> np.ndarray:
    clipped = empty_sum([torch.zeros(len(normals))], 1.0)
    noised = add_noise(clipped, SIGMA, Forced(normals)).tensors[0].double().numpy()
    return noised / clipped.grid


def discrete(normals: Uniforms) -> np.ndarray:
    grid = empty_sum([torch.zeros(1)], 1.0).grid
    return discrete_gaussian(SIGMA / grid, len(normals), Forced(normals)).astype(np.float64)


@pytest.mark.parametrize("noise", [continuous, discrete])
def test_noise_has_no_holes_around_zero(noise) -> None:  # type: ignore[no-untyped-def]
    """At σ = 40 the noise's own grid is 10⁻¹¹ of a normal: a hole of 10⁻⁸ would be seen there."""
    grid = empty_sum([torch.zeros(1)], 1.0).grid
    x, y = noise(box_muller(near_the_origin())).reshape(2, -1)
    assert fills_the_disc(x, y, LARGEST * SIGMA / grid)


@pytest.mark.parametrize("noise", [continuous, discrete])
def test_the_generator_that_had_holes_is_caught(noise) -> None:  # type: ignore[no-untyped-def]
    grid = empty_sum([torch.zeros(1)], 1.0).grid
    x, y = noise(with_holes(near_the_origin_as_it_was())).reshape(2, -1)
    assert not fills_the_disc(x, y, LARGEST * SIGMA / grid)
    assert len(np.unique(np.rint(np.hypot(x, y) / 10))) < 10  # a few circles


@pytest.mark.parametrize("bits", [10, 30, 50])
def test_radii_follow_their_law_at_every_scale_around_zero(bits: int) -> None:
    words = np.random.default_rng(bits).integers(0, 2**64, (3, PAIRS), dtype=np.uint64)
    words[0] >>= np.uint64(bits)
    words[2] &= ~np.uint64(1)
    x, y = box_muller(words.reshape(-1)).reshape(2, -1)
    # The distance from 1 is uniform below 2^-(bits + 1), and it is 1 − exp(−r²/2).
    distance = -np.expm1(-(x**2 + y**2) / 2) * 2.0 ** (bits + 1)
    assert stats.kstest(distance, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("bits", [10, 30, 50, 53])
def test_radii_follow_their_law_far_out(bits: int) -> None:
    """At 53 bits, which leave the fine word alone, radii begin at 8.6."""
    words = np.random.default_rng(bits).integers(0, 2**64, (3, PAIRS), dtype=np.uint64)
    words[0] >>= np.uint64(bits)
    words[2] |= np.uint64(1)
    x, y = box_muller(words.reshape(-1)).reshape(2, -1)
    distance = np.exp(-(x**2 + y**2) / 2) * 2.0 ** (bits + 1)
    assert stats.kstest(distance, "uniform").pvalue > ALPHA
    assert np.hypot(x, y).min() > math.sqrt(2 * (bits + 1) * math.log(2)) - 1e-9


def test_both_halves_meet_without_a_seam() -> None:
    """Where the two ends meet, at radius √(2 ln 2), as many draws lie on one side as on the other;
    and over the whole plane values are normal, a pair's two uncorrelated in size and sign."""
    x, y = OsEntropy().normal(400_000).reshape(2, -1)
    inside = int((np.hypot(x, y) < math.sqrt(2 * math.log(2))).sum())
    assert stats.binomtest(inside, len(x), 0.5).pvalue > ALPHA
    for values in (x, y):
        assert stats.kstest(values, "norm").pvalue > ALPHA
    for one, other in ((x, y), (np.abs(x), np.abs(y)), (x**2, y)):
        found = float(np.corrcoef(one, other)[0, 1])
        assert abs(found) < float(stats.norm.isf(ALPHA / 2)) / math.sqrt(len(x))


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_extreme_words_give_finite_normals(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    extreme = np.full(3, word, dtype=np.uint64)
    assert np.isfinite(box_muller(extreme)).all()
    farthest = np.array([0, 0, 1], dtype=np.uint64)
    assert 12.1 < box_muller(farthest).max() < 12.2
    monkeypatch.setattr(generator, "_words", lambda count: np.full(count, word, dtype=np.uint64))
    assert np.isfinite(OsEntropy().normal(5)).all()
