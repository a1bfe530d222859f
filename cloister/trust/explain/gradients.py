"""Attributes a figure by integrated gradients (Sundararajan, Taly and Yan 2017, arXiv:1703.01365).

    aᵢ = (xᵢ − bᵢ) · ∫₀¹ ∂f(b + t (x − b))/∂xᵢ dt,   Σ aᵢ = f(x) − f(b)   (completeness)

with the blank input b. The integral is a Gauss-Legendre sum. Its number of steps is doubled until
completeness holds to within `CLOSE`; the remaining difference is reported as the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.trust.explain.reading import MOST_TOKENS, ModelReading

# Steps of the first sum and of the last; captum's default is 50.
FIRST_STEPS, MOST_STEPS = 16, 256
# The gap at which the doubling stops: as a part of f(x) − f(b); and, if that difference is small,
# in the figure's own unit, below the second decimal that a report shows.
CLOSE, CLOSE_ABSOLUTE = 0.01, 0.005


@dataclass(frozen=True)
class Attribution:
    """The contribution of each piece to the figure.

    Attributes:
        values: The value of each piece, in the figure's unit (for attention rollout, a share),
            float32 [P].
        gap: Sum of the values minus (f(x) − f(b)); None: the method promises no completeness.
        steps: Number of steps of the sum; None: the method has no steps.
    """

    values: Tensor
    gap: float | None = None
    steps: int | None = None


def integrated_gradients(reading: ModelReading) -> Attribution:
    """Attributes a figure to pieces; see the module.

    Args:
        reading: The input and figure that are explained. Only tokens of pieces differ between the
            input and the blank input, so the pieces' values are the whole sum.
    """
    step = reading.embedded - reading.blank
    edges = torch.stack([reading.embedded, reading.blank])
    with torch.no_grad():
        ends = reading.figure(edges).double()
    difference = float(ends[0] - ends[1])
    steps = FIRST_STEPS
    while True:
        tokens = (step.double() * _mean_gradient(reading, step, steps)).sum(dim=1)
        gap = float(tokens.sum()) - difference
        is_close = abs(gap) <= max(CLOSE * abs(difference), CLOSE_ABSOLUTE)
        if is_close or steps * 2 > MOST_STEPS:
            break
        steps *= 2
    values = [tokens[list(piece.tokens)].sum() for piece in reading.pieces]
    return Attribution(torch.stack(values).float(), gap, steps)


def _mean_gradient(reading: ModelReading, step: Tensor, steps: int) -> Tensor:
    """Returns the figure's mean gradient on the line from the blank input, float64 [T, H]."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    ways = torch.tensor((places + 1) / 2, dtype=torch.float32)
    shares = torch.tensor(weights / 2, dtype=torch.float64)
    total = torch.zeros(step.shape, dtype=torch.float64)
    rows = max(1, MOST_TOKENS // len(step))
    for part, share in zip(ways.split(rows), shares.split(rows), strict=True):
        between = (reading.blank + part[:, None, None] * step).requires_grad_(True)
        with torch.enable_grad():
            figure = reading.figure(between).sum()
        (gradient,) = torch.autograd.grad(figure, between)
        total += torch.einsum("s,sth->th", share, gradient.double())
    return total
