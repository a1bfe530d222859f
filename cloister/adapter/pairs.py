"""Which tensors of an adapter are the two factors of one product.

    W = W₀ + s (B A + B' A')        s = alpha / r, the same for both products

B [outputs, r] and A [r, inputs] train; B' and A', where a study has them, are the residual: what
averaging factors left over, at a rank of its own. It travels down and never trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# How B and A of one product are called, as the names end.
_ENDINGS = ((".lora_B.weight", ".lora_A.weight"), ("head.up.weight", "head.down.weight"))


class Pair(NamedTuple):
    """Names of one product's factors.

    Attributes:
        left: B, [outputs, rank].
        right: A, [rank, inputs].
    """

    left: str
    right: str

    @property
    def residual(self) -> Pair:
        """Names of the residual's factors beside this pair."""
        return Pair(*(f"{name.removesuffix('.weight')}.residual.weight" for name in self))


def find_pairs(names: Iterable[str]) -> tuple[Pair, ...]:
    """Every pair that one of the names is a factor of, in name order; residuals are none."""
    found = set()
    for name in names:
        for endings in _ENDINGS:
            for ending in endings:
                if name.endswith(ending):
                    stem = name.removesuffix(ending)
                    found.add(Pair(stem + endings[0], stem + endings[1]))
    return tuple(sorted(found))
