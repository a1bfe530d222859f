"""One call draws millions of numbers, as many as a batch or an update may need.

Counters, buffers and caches have sizes; where a generator comes to the end of one, it must not
begin again.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from cloister.privacy import entropy as generator
from cloister.privacy.entropy import KeyStream, OsEntropy
from tests.support.entropy import normals

ALPHA = 1e-6  # one false alarm in a million runs
FAR = 2**23
DRAWS: dict[str, Callable[[OsEntropy, int], np.ndarray]] = {
    "uniform": OsEntropy.uniform,
    "gaussian": lambda _, count: normals(count),
}


def copies(values: np.ndarray) -> int:
    """How many values come again, with either sign."""
    found = np.sort(np.abs(values))
    return int((found[1:] == found[:-1]).sum())


def distances_p(values: np.ndarray) -> float:
    """Correlation at every distance that is a power of two: n products of variance 1 each."""
    standard = (values - values.mean()) / values.std()
    found = []
    for power in range(len(values).bit_length() - 1):
        lag = 1 << power
        count = len(values) - lag
        z = abs(float(standard[:-lag] @ standard[lag:])) / np.sqrt(count)
        found.append(2 * float(stats.norm.sf(z)))
    return min(found) * len(found)


@pytest.mark.parametrize("kind", DRAWS)
def test_one_call_repeats_nothing_however_much_is_drawn(kind: str) -> None:
    """On 53 bits 2^23 numbers have one equal pair by chance in a hundred runs, four in 10^9."""
    values = DRAWS[kind](OsEntropy(), FAR)
    assert len(values) == FAR
    assert copies(values) < 4
    assert distances_p(values) > ALPHA


class Ending(KeyStream):
    """A key stream that begins again after so many words."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._own = super().words(size)
        self._at = 0

    def words(self, count: int) -> np.ndarray:
        places = (self._at + np.arange(count)) % len(self._own)
        self._at += count
        return self._own[places]


class Turning(Ending):
    """One whose words come again as their complements: no two are equal."""

    def words(self, count: int) -> np.ndarray:
        turns = (self._at + np.arange(count)) // len(self._own)
        return super().words(count) ^ (-(turns & 1)).view(np.uint64)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("power", [16, pytest.param(19, marks=pytest.mark.nightly), 22])
def test_a_keystream_that_ends_is_seen(
    kind: str, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "KeyStream", lambda: Ending(2**power))
    count = min(2 ** (power + 2), FAR)  # what is seen in these is seen in more
    assert copies(DRAWS[kind](OsEntropy(), count)) >= 4


def test_words_that_come_again_turned_round_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "KeyStream", lambda: Turning(2**21))
    values = OsEntropy().uniform(2**22)
    assert copies(values) < 4
    assert distances_p(values) < ALPHA
