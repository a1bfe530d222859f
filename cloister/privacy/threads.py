"""Noise is drawn block by block, on as many threads as the process may use.

A block's values come from a key stream of its own (`privacy.entropy`), so blocks are independent
whatever their order and whichever thread draws them: nothing is shared that two threads could take
the same words from. numpy and the cipher let go of Python's lock while they work.
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
    import torch  # plans are made of this room, where nothing computes

    return max(min(torch.get_num_threads(), _cores()), 1)


def _cores() -> int:
    """Cores that the process may run on: of its affinity where the system has one."""
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
        blocks: What is to be done; two of them must not write to the same place.
        work: Draws from the entropy, once a block.
        entropy: What it draws from. One that is not the operating system's gives its numbers one
            after another, on the caller's thread: what a seed gives depends on no machine.
        threads: Most threads; None: `usable_threads`.

    Raises:
        Exception: Whatever a block's work raised first; the other threads have ended by then.
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
