"""Conformance of clipping: how much one unit changes a sum, alone and among others.

The path is linear in the bound, so a bound below every gradient's norm is the worst case. The
plan's own bound is tested with losses so steep that every gradient exceeds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloister.audit.statistics import Check, Floats, exact_check
from cloister.models.network import trained_parameters
from cloister.privacy import clipping
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.plan import Plan
from cloister.tasks.task import Task
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

# A record alone runs other kernels than in a proven shape: float32 rounding inside the network
# changes its gradient by this fraction.
ROUNDING = 1e-4
# A bound that every gradient exceeds, and a factor of losses that makes gradients exceed any bound.
LOW_BOUND, STEEP = 1e-3, 1e6
# Least norm of a clipped unit over the bound (`clipping.MARGIN` takes 0.001 of it); with shared
# noise a coarse grid may take a quarter (`shared_noise.MOST_LENGTHENING`).
FULL, FULL_IF_SHARED = 0.99, 0.74


@dataclass(frozen=True)
class SteepTask:
    """A task whose losses, and so gradients, are many times as large."""

    task: Task
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def record_losses(self, *given: Any) -> Tensor:
        """The task's losses times the factor."""
        losses: Tensor = self.task.record_losses(*given) * self.factor
        return losses


def clipping_checks(
    workspace: Workspace, units: Sequence[UnitExamples], plan: Plan, shapes: BatchShapes
) -> list[Check]:
    """Checks each unit's influence on a sum, and that it does not depend on other units.

    Args:
        workspace: The study's, with its trained names set.
        units: Synthetic records, by unit, of different lengths; at least three.
        plan: A private plan.
        shapes: The proven shapes of passes.
    """
    bound = min(plan.max_grad_norm or 1.0, LOW_BOUND)
    sums = _Sums(workspace, workspace.task, plan, bound)
    with per_record_hooks(workspace.network):
        whole = sums.of(units, shapes)
        without = [sums.of([*units[:i], *units[i + 1 :]], shapes) for i in range(len(units))]
        alone = [sums.of([unit], shapes) for unit in units]
        cut = sums.of(units, one_by_one(workspace.task.max_length))
        own = _own_bound(workspace, units, plan, shapes)
    influence = max(float(np.linalg.norm(whole - other)) for other in without) / bound
    largest = max(float(np.linalg.norm(one)) for one in alone) / bound
    companions = max(
        float(np.linalg.norm(whole - other - one))
        for other, one in zip(without, alone, strict=True)
    )
    parts = np.abs(whole - sum(alone)).max() if len(units) else 0.0
    full = FULL if plan.sharing is None else FULL_IF_SHARED
    return [
        Check(
            name="influence",
            law="largest change of a clipped sum by one unit, over the bound",
            figure=influence,
            low=full,
            high=1.0,
            is_exact=True,
        ),
        Check(
            name="influence alone",
            law="longest contribution of a unit alone, over the bound",
            figure=largest,
            low=full,
            high=1.0,
            is_exact=True,
        ),
        Check(
            name="influence at the plan's bound",
            law="longest contribution of a unit with steep losses, over the plan's bound",
            figure=own,
            low=full,
            high=1.0,
            is_exact=True,
        ),
        exact_check(
            "companions",
            "how much a unit's part depends on others, over the bound",
            max(companions, float(parts)) / bound,
        ),
        exact_check(
            "physical batches",
            "distance from the sum of records alone, over the bound",
            float(np.linalg.norm(whole - cut)) / bound,
            ROUNDING * len(units),
        ),
        exact_check(
            "clipped rows",
            "distance of sums of made gradients from the sums of their "
            "rows, each at most the bound",
            _rows(workspace, plan),
        ),
        exact_check("poisoned records", "what three such records add to a sum", _poison(), 1e-6),
    ]


@dataclass(frozen=True)
class _Sums:
    """Clipped sums of a path, as float64 vectors."""

    workspace: Workspace
    task: Task
    plan: Plan
    bound: float

    def of(self, units: Sequence[UnitExamples], shapes: BatchShapes) -> Floats:
        grid = shared_grid(self.plan, self.bound, self.workspace.start.size)
        total = clipped_gradient_sum(
            self.workspace.network, self.task, units, self.bound, shapes, grid
        )
        return flat(total) if total.bound == self.bound else np.full(1, np.nan)


def shared_grid(plan: Plan, bound: float, values: int) -> float | None:
    """Grid of a plan's sums at another bound; None: the bound's own."""
    if plan.sharing is None:
        return None
    return replace(plan, max_grad_norm=bound).shared_noise(values).grid


def flat(total: ClippedSum) -> Floats:
    """Flattens a clipped sum into one vector."""
    joined: Floats = torch.cat([t.flatten() for t in total.tensors]).double().cpu().numpy()
    return joined * total.grid


def _own_bound(
    workspace: Workspace, units: Sequence[UnitExamples], plan: Plan, shapes: BatchShapes
) -> float:
    bound = plan.max_grad_norm or 1.0
    steep: Any = SteepTask(workspace.task, STEEP)
    sums = _Sums(workspace, steep, plan, bound)
    return max(float(np.linalg.norm(sums.of([unit], shapes))) for unit in units) / bound


def _rows(workspace: Workspace, plan: Plan) -> float:
    """Rows of lengths from a thousandth to a thousand bounds, in the study's shapes.

    Returns:
        The largest distance, in bounds, of a row's contribution from its exactly clipped value, or
        of a sum from the sum of its rows' contributions. NaN or more than 1 if a row exceeds the
        bound.
    """
    bound = plan.max_grad_norm or 1.0
    values = workspace.start.size
    grid = shared_grid(plan, bound, values)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1e-3, 0.1, 0.5, 0.7, 1.5, 10.0, 1e3]) * bound
    shapes = [tuple(p.shape) for _, p in trained_parameters(workspace.network)]
    pieces = [torch.randn((len(lengths), *shape), generator=generator) for shape in shapes]
    joined = torch.cat([piece.flatten(1) for piece in pieces], dim=1)
    joined *= (lengths / joined.norm(dim=1))[:, None]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1].tolist()
    rows = [
        piece.view(-1, *shape)
        for piece, shape in zip(torch.tensor_split(joined, ends, dim=1), shapes, strict=True)
    ]
    each = [
        flat(clipping.clip_and_sum([row[i : i + 1] for row in rows], bound, grid))
        for i in range(len(lengths))
    ]
    norms = np.array([np.linalg.norm(one) for one in each]) / bound
    if not (norms <= 1).all():
        return float(max(norms.max(), 2.0))
    step = (grid or grid_of(bound)) / bound
    room = 1 - FULL + math.sqrt(values) * step  # the margin, and rounding to the grid twice
    total = flat(clipping.clip_and_sum(rows, bound, grid))
    together = float(np.abs(total - sum(each)).max()) / bound
    expected = joined.double().numpy()
    factors = np.minimum(1.0, bound / np.linalg.norm(expected, axis=1))
    apart = max(
        float(np.linalg.norm(one - factor * row)) / bound
        for one, factor, row in zip(each, factors, expected, strict=True)
    )
    # float32 norms and factors may differ by 10⁻⁶ between a row alone and among others.
    return max(0.0, together - 1e-6, apart - room)


def _poison() -> float:
    """Sums three poisoned rows (NaN, infinite, overflowing) and one of length 0.5, which must be
    left."""
    poison = [[math.nan, 1.0], [0.5, 0.0], [math.inf, 0.0], [-1e38, 1e38]]
    clean = flat(clipping.clip_and_sum([torch.tensor(poison)], 1.0))
    return float(np.linalg.norm(clean - [0.5, 0.0]))
