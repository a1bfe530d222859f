"""Noise near 0 is as fine as its grid, which a float's normal may not be.

A value within 10⁻⁸ deviations of zero is drawn once in 10⁸, so these tests do not wait for it: they
choose the words, and look at the law of what the words' free bits give.
"""

import math
import os
import warnings

import numpy as np
import pytest
from scipy import stats

from cloister.privacy import entropy as generator
from cloister.privacy.clipping import grid_of
from cloister.privacy.entropy import KeyStream, OsEntropy
from cloister.privacy.gaussian_table import ENTRY_BITS, DiscreteGaussian

ALPHA = 1e-6  # one false alarm in a million runs
COUNT = 30_000  # in one block
SIGMA = 40.0
DEVIATION = SIGMA / grid_of(1.0)


def at_the_origin(table: DiscreteGaussian) -> np.ndarray:
    """Draws whose words name an entry of one of the two cells around zero."""
    words = np.random.default_rng(7).integers(0, 2**64, COUNT, dtype=np.uint64)
    before = table.counts[table.cells < -1].sum()
    around = table.counts[(table.cells == -1) | (table.cells == 0)].sum()
    entry = before + words % np.uint64(around)
    words = (entry.astype(np.uint64) << np.uint64(64 - ENTRY_BITS)) + (
        words >> np.uint64(ENTRY_BITS)
    )
    return table.draw(COUNT, lambda count: words[:count].copy())


def rounded_box_muller() -> np.ndarray:
    """Box-Muller from one uniform of 53 bits, where its radius is below 10⁻⁷, on the same grid."""
    rng = np.random.default_rng(7)
    uniform = 1 - rng.integers(0, 2**6, COUNT) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform))
    return np.rint(DEVIATION * radius * np.cos(2 * math.pi * rng.random(COUNT) / 2**20))


def fills(values: np.ndarray, width: float) -> bool:
    """Uniform over (−width, width), and hardly two alike of so many in 10⁹ places."""
    is_uniform = stats.kstest((values + width) / (2 * width), "uniform").pvalue > ALPHA
    return bool(is_uniform and len(np.unique(values)) > 0.999 * COUNT)


def test_noise_has_no_holes_around_zero() -> None:
    table = DiscreteGaussian(DEVIATION)
    found = at_the_origin(table)
    assert table.width < DEVIATION / 64
    assert fills(found + 0.5, table.width)
    # Every bit of a value is free, down to the grid's own.
    for bit in range(30):
        ones = int(((found >> bit) & 1).sum())
        assert stats.binomtest(ones, COUNT, 0.5).pvalue > ALPHA / 30


def test_the_generator_that_had_holes_is_caught() -> None:
    values = rounded_box_muller()
    assert not fills(values, float(np.abs(values).max()))
    assert len(np.unique(values)) < 100  # a few circles


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_extreme_words_end(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry's and every place's first and last word; rejections come from sound words."""

    class Extreme(KeyStream):
        calls = 0

        def words(self, count: int) -> np.ndarray:
            self.calls += 1
            return np.full(count, word, np.uint64) if self.calls == 1 else super().words(count)

    monkeypatch.setattr(generator, "KeyStream", Extreme)
    assert np.abs(OsEntropy().gaussian(DEVIATION, 5)).max() < 14 * DEVIATION
    assert 0 <= OsEntropy().uniform(3).min() <= OsEntropy().uniform(3).max() < 1


def test_a_key_stream_goes_on_where_it_was() -> None:
    stream, other = KeyStream(), KeyStream()
    parts = [stream.words(count) for count in (1, 2**15 + 3, 7, 0, 2**16)]
    whole = np.concatenate(parts)
    assert len(np.unique(whole)) == len(whole)
    assert not np.isin(other.words(1000), whole).any()
    ones = np.unpackbits(whole.view(np.uint8)).sum()
    assert stats.binomtest(int(ones), 64 * len(whole), 0.5).pvalue > ALPHA


def of_a_fork(source: OsEntropy) -> bytes:
    """Draws in a fork of this process, as workers of a simulation do."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, not needed here
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, drawn(source))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def drawn(source: OsEntropy) -> bytes:
    return source.gaussian(DEVIATION, 8).tobytes() + source.uniform(8).tobytes()


def test_no_two_forks_draw_the_same_noise() -> None:
    source = OsEntropy()
    first = drawn(source)
    found = [first, of_a_fork(source), of_a_fork(source), drawn(source)]
    assert {len(one) for one in found} == {128}
    # Value by value: neither noise nor uniforms are shared.
    assert len({one[at : at + 8] for one in found for at in range(0, 128, 8)}) == 4 * 16
