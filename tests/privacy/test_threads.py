"""Noise on several threads has the same distribution, uses each word once, and raises errors."""

import os
import threading

import numpy as np
import pytest
import torch
from scipy import stats

from cloister.privacy import discrete_noise, entropy, noise, threads
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import KeyStream, OsEntropy, SeededEntropy
from cloister.privacy.noise import add_noise
from cloister.privacy.threads import each_block, usable_threads

ALPHA = 1e-6  # one false alarm in a million runs
SMALL = 2**10  # values of a block here, so that a few thousand make many blocks
SHAPES = ((5000,), (3, 700), (), (4097,))
COUNT = 5000 + 2100 + 1 + 4097


@pytest.fixture(params=[1, 2, 5])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many threads, and small blocks."""
    monkeypatch.setattr(threads, "usable_threads", lambda: request.param)
    monkeypatch.setattr(noise, "BLOCK", SMALL)
    monkeypatch.setattr(discrete_noise, "BLOCK", SMALL)
    return int(request.param)


def released(source: entropy.Entropy) -> np.ndarray:
    sums = tuple(torch.arange(int(np.prod(shape))).reshape(shape) for shape in SHAPES)
    return np.concatenate(
        [t.flatten().numpy() for t in add_noise(ClippedSum(sums, 1.0), 1.0, source).tensors]
    )


def test_what_a_seed_gives_does_not_depend_on_the_number_of_threads(many: int) -> None:
    found = released(SeededEntropy(np.random.default_rng(3)))
    share = discrete_gaussian(50.0, COUNT, SeededEntropy(np.random.default_rng(3)))
    drawn = np.rint(np.random.default_rng(3).standard_normal(COUNT) * 50).astype(np.int64)
    assert np.array_equal(share, drawn)
    continuous = np.random.default_rng(3).standard_normal(COUNT) * (2.0**60 + 4) ** 0.5
    sums = np.concatenate([np.arange(int(np.prod(shape))) for shape in SHAPES])
    assert np.array_equal(found, ((np.rint(continuous) + sums) * 2.0**-30).astype(np.float32))


def test_each_block_has_a_key_of_its_own(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word that any stream gave: none is another's, and no stream serves two threads."""
    given: list[tuple[int, int, np.ndarray]] = []

    class Noted(KeyStream):
        def words(self, count: int) -> np.ndarray:
            found = super().words(count)
            given.append((id(self), threading.get_ident(), found.copy()))
            kept.append(self)  # so that no other gets its id
            return found

    kept: list[KeyStream] = []
    monkeypatch.setattr(entropy, "KeyStream", Noted)
    released(OsEntropy())
    words = np.concatenate([found for _, _, found in given])
    # Of 12,000 words of 64 bits two are alike by chance once in 10¹¹ runs.
    assert len(np.unique(words)) == len(words)
    streams: dict[int, set[int]] = {}
    for stream, thread, _ in given:
        streams.setdefault(stream, set()).add(thread)
    assert all(len(used) == 1 for used in streams.values())
    assert len(streams) == 5 + 3 + 1 + 5  # blocks of the four tensors


def test_blocks_are_all_different_and_follow_the_law(many: int) -> None:
    deviation = 2.0**50
    drawn = discrete_gaussian(deviation, 16 * SMALL, OsEntropy()).reshape(16, SMALL)
    assert len(np.unique(drawn)) == drawn.size  # two alike: once in 10⁷ runs by chance
    assert stats.kstest(drawn.ravel() / deviation, "norm").pvalue > ALPHA
    together = np.corrcoef(drawn)[np.triu_indices(16, 1)]
    assert np.abs(together).max() < stats.norm.isf(ALPHA / 2 / len(together)) / SMALL**0.5


def test_an_error_in_a_block_comes_out(many: int) -> None:
    done = []

    def work(block: int) -> None:
        if block == 3:
            raise MemoryError("no room")
        done.append(block)

    with pytest.raises(MemoryError, match="no room"):
        each_block(range(9), work, OsEntropy())
    assert not [one for one in threading.enumerate() if one.name.startswith("noise")]
    assert {0, 1, 2} <= set(done)


def test_threads_are_torch_s_and_no_more_than_the_cores_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert usable_threads() == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert usable_threads() == 2
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_threads() == 1
