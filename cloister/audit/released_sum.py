"""The coordinator's view of one site's step: its release, or the sum over the honest sites.

An audit attacks the release that the plan's promise covers. With shared noise that is a sum in
which one site holds the attacked records, and the other honest sites (the fewest allowed) hold
none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan


class ReleasedSum:
    """The steps of a plan, as its adversary sees them.

    Args:
        plan: The plan; it gives `local_steps` steps.
        entropy: The source of sampling and noise.
    """

    def __init__(self, plan: Plan, entropy: Entropy) -> None:
        self._plan = plan
        honest = plan.sharing.honest if plan.sharing is not None else 1
        self._gates = [Mechanism(plan, entropy) for _ in range(honest)]

    def grid(self, values: int) -> float | None:
        """Grid of the sums that `release` takes; None: the bound's default."""
        return self._plan.shared_noise(values).grid if self._plan.sharing is not None else None

    def draw(self, count: int) -> NDArray[np.int64]:
        """Draws the next batch of `count` units at the one site that has records."""
        first, *others = self._gates
        for mechanism in others:
            mechanism.draw(0)
        return first.draw(count)

    def release(self, clipped: ClippedSum) -> Sequence[Tensor]:
        """The batch's sum with all of its noise, one float32 tensor per parameter."""
        if self._plan.sharing is None:
            return self._gates[0].release(clipped).tensors
        first, *others = self._gates
        nothing = ClippedSum(
            tuple(torch.zeros_like(t) for t in clipped.tensors), clipped.bound, clipped.coarse
        )
        total = first.release_share(clipped)
        for mechanism in others:
            total = total + mechanism.release_share(nothing)
        flat = torch.from_numpy(total).double() * clipped.grid
        pieces = torch.split(flat, [t.numel() for t in clipped.tensors])
        return tuple(
            piece.float().view(t.shape).to(t.device)
            for piece, t in zip(pieces, clipped.tensors, strict=True)
        )
