"""Makes named child generators for randomness that may be reproducible.

One root seed gives every purpose its own stream, so that adding a consumer never shifts another's
numbers. Privacy noise and private sampling never come from here: they draw from OS entropy
(`cloister.privacy.entropy`).
"""

from __future__ import annotations

import hashlib

import numpy as np


def child_seed(seed: int, *names: str | int) -> int:
    """Derives a 63-bit seed for one purpose.

    Args:
        seed: The study's root seed.
        *names: The purpose of the child, outermost first (`"site", "north", "round", 3`).

    Returns:
        A non-negative integer below 2**63 (what torch and numpy both accept).
    """
    path = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def child_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the numpy generator of one purpose; see `child_seed`."""
    return np.random.default_rng(child_seed(seed, *names))
