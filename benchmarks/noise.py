"""Noise on one tensor of 20 million values: values a second in one core, and memory a value."""

import resource
import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.figure import Figure
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import KeyStream, OsEntropy
from cloister.privacy.noise import add_noise

VALUES = 20_000_000
# Of the key stream that is timed beside it: the least that a value of one word can take.
WORDS = 2_000_000


def figures(turns: int) -> Iterator[Figure]:
    """CPU time of one thread; the key stream's own time is printed beside it.

    Args:
        turns: Of which the median counts.
    """
    torch.set_num_threads(1)
    clipped = ClippedSum((torch.randint(-(2**30), 2**30, (VALUES,)),), 1.0)
    entropy, stream = OsEntropy(), KeyStream()
    add_noise(ClippedSum((clipped.tensors[0][: VALUES // 20],), 1.0), 1.0, entropy)  # warm
    before = _peak_bytes()
    times, bare = [], []
    for _ in range(turns):
        started = time.process_time()
        add_noise(clipped, 1.0, entropy)
        between = time.process_time()
        stream.words(WORDS)
        times.append(between - started)
        bare.append((time.process_time() - between) * VALUES / WORDS)
    taken = (_peak_bytes() - before) / VALUES
    rate = VALUES / statistics.median(times) / 1e6
    print(
        f"noise: {rate:.0f} million values a second, fastest {VALUES / min(times) / 1e6:.0f}; "
        f"the key stream alone {VALUES / statistics.median(bare) / 1e6:.0f}"
    )
    yield Figure("noise, million values a second in one core", rate, 100, "at least")
    yield Figure("noise, bytes a value, the release included", taken, 9, "at most")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
