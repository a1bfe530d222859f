"""One call for millions of numbers: as many as a batch of units or an update of values may need.

Counters, buffers and caches have sizes; where a generator comes to the end of one, it must not
begin again.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from cloister.privacy import entropy as generator
from cloister.privacy.entropy import OsEntropy

ALPHA = 1e-6  # one false alarm in a million runs
FAR = 2**23
DRAWS: dict[str, Callable[[OsEntropy, int], np.ndarray]] = {
    "uniform": OsEntropy.uniform,
    "normal": OsEntropy.normal,
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


def circles_p(normals: np.ndarray) -> float:
    """A pair's radius beside its angle, which come of different words: both made uniform."""
    x, y = normals.reshape(2, -1)
    inside = np.exp(-(x**2 + y**2) / 2)
    angle = np.arctan2(y, x) % (2 * np.pi)
    found = [np.corrcoef(angle, one)[0, 1] for one in (inside, np.abs(inside - 0.5))]
    return 4 * float(stats.norm.sf(np.abs(found) * np.sqrt(len(x))).min())


@pytest.mark.parametrize("kind", DRAWS)
def test_one_call_repeats_nothing_however_much_is_drawn(kind: str) -> None:
    """On 53 bits 2^23 numbers have one equal pair by chance in a hundred runs, four in 10^9."""
    values = DRAWS[kind](OsEntropy(), FAR)
    assert len(values) == FAR
    assert copies(values) < 4
    assert distances_p(values) > ALPHA
    assert kind == "uniform" or circles_p(values) > ALPHA


def short(size: int) -> Callable[[int], np.ndarray]:
    sound = generator._words

    def words(count: int) -> np.ndarray:
        return np.resize(sound(min(count, size)), count)

    return words


def turned(size: int) -> Callable[[int], np.ndarray]:
    """Every word beyond a size is another's complement: no two are equal."""
    sound = generator._words

    def words(count: int) -> np.ndarray:
        found = np.resize(sound(min(count, size)), count)
        found[size:] = ~found[size:]
        return found

    return words


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("power", [16, 19, 21, 22])
def test_a_keystream_that_ends_is_seen(
    kind: str, power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "_words", short(2**power))
    values = DRAWS[kind](OsEntropy(), FAR)
    # 2^22 words are one word for a pair's radius and its angle: no two values are equal then.
    assert copies(values) >= 4 or circles_p(values) < ALPHA


def test_words_that_come_again_turned_round_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "_words", turned(2**21))
    values = OsEntropy().uniform(2**22)
    assert copies(values) < 4
    assert distances_p(values) < ALPHA
