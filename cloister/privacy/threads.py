"""Draws noise block by block, on as many threads as the process may use.

A block's values come from a key stream of its own (`privacy.entropy`), so blocks are independent
for any order and any threads: no two threads share a stream. numpy and the cipher release Python's
lock while they work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cloister.privacy.entropy import Entropy, OsEntropy

Block = TypeVar("Block")


def usable_threads() -> int:
    """Threads that torch computes with (`OMP_NUM_THREADS`), at most the cores that are allowed."""
    import torch  # imported late: other parts of this room are used without torch

    return max(min(torch.get_num_threads(), _cores()), 1)


def _cores() -> int:
    """Number of cores that the process may run on, by its affinity where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each_block(
    blocks: Sequence[Block],
    work: Callable[[Block], None],
    entropy: Entropy,
    threads: int | None = None,
) -> None:
    """Does the work of every block, and returns when all is done.

    Args:
        blocks: The blocks; no two of them may write to the same place.
        work: Does the work of a block; draws from the entropy once.
        entropy: The source that `work` draws from. A seeded one is used on the caller's thread
            only, in order, so that its numbers do not depend on the machine.
        threads: Most threads; None: `usable_threads`.

    Raises:
        Exception: The first exception of a block's work; the other threads have ended by then.
    """
    most = min(usable_threads() if threads is None else threads, len(blocks))
    if most < 2 or not isinstance(entropy, OsEntropy):
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(most, thread_name_prefix="noise") as pool:
        waiting = [pool.submit(work, block) for block in blocks]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
