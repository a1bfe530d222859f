"""Audits one training run with many gradient canaries.

Canary j contributes exactly C along coordinate j of its own: canaries are orthogonal, and none
changes another's score. A fair coin decides whether a canary is in the data; those that are in are
drawn, clipped, summed and noised together with synthetic records, as in training. The attack sees
every noised sum, which the claim is about, and scores a canary by the log-likelihood ratio of its
coordinate over all steps (gradient canaries: Andrew et al. 2024, arXiv:2302.03098; Nasr et al.
2023, arXiv:2302.07956).

`audit.one_run` judges a run even if its canaries depend on one another. If the data are canaries
only, a sound mechanism gives each its own draws and its own noise. Then the scores are independent,
and `audit.lower_bounds` judges them as separate runs, which gives a tighter bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloister.audit.frozen_step import likelihood_ratio
from cloister.audit.released_sum import ReleasedSum
from cloister.errors import UsageError
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.optimizer import learning_rate_at, make_optimizer
from cloister.training.proof import proven
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

MakeEntropy = Callable[[], Entropy]


@dataclass(frozen=True)
class CanaryRun:
    """The result of one training run with canaries.

    Attributes:
        scores: Score of each canary; higher means "in".
        is_in: Whether each canary was in the data.
    """

    scores: NDArray[np.float64]
    is_in: NDArray[np.bool_]


# Most canaries, if the message has enough coordinates: more gain little (the bound on
# ε = 8 grows from 3.2 at 1,000 to 4.7 at 5,000, and no further at 20,000).
MOST_CANARIES = 5000


def audit_run(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy = OsEntropy,
    coins: Entropy | None = None,
) -> CanaryRun:
    """Trains once with canaries.

    Args:
        workspace: Base, network and task; the network's parameters are overwritten.
        units: Synthetic records, by unit; none: canaries alone.
        plan: A private plan; all of its steps are run.
        config: The `[training]` section.
        make_entropy: Makes the source of randomness; another one than the default tests the
            auditor.
        coins: Says where canaries lie and which are in the data; None: the operating system.

    Raises:
        UsageError: The plan is not private, or the message is too small for canaries.
    """
    if not plan.is_private or plan.max_grad_norm is None:
        raise UsageError("privacy.enabled: a plan with noise is needed; there is nothing to audit")
    bound = plan.max_grad_norm
    write_adapter(workspace.network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    parameters = [parameter for _, parameter in trained_parameters(workspace.network)]
    size = sum(parameter.numel() for parameter in parameters)
    count = min(MOST_CANARIES, size // 2)
    if count < 100:
        raise UsageError(f"{size} trained parameters: too few to place canaries on")
    coins = coins or OsEntropy()
    coordinates = np.sort(np.argsort(coins.uniform(size))[:count])
    shapes = proven(workspace, plan, config).shapes
    entropy = make_entropy()
    is_in = np.asarray(coins.uniform(count) < 0.5)
    present = coordinates[is_in]
    steps = plan.local_steps * plan.num_rounds
    mechanism = ReleasedSum(replace(plan, local_steps=steps), entropy)
    grid = mechanism.grid(size)
    optimizer = make_optimizer(config, parameters, plan)
    scores = np.zeros(count)
    with per_record_hooks(workspace.network):
        for step in range(steps):
            drawn = mechanism.draw(len(units) + len(present))
            batch = [units[index] for index in drawn if index < len(units)]
            chosen = present[drawn[drawn >= len(units)] - len(units)]
            clipped = clipped_gradient_sum(
                workspace.network, workspace.task, batch, bound, shapes, grid
            )
            sums = mechanism.release(clipped + _canaries(chosen, parameters, bound, grid))
            flat = torch.cat([total.flatten() for total in sums]).double().cpu().numpy()
            scores += likelihood_ratio(flat[coordinates] / bound, plan)
            for parameter, gradient in zip(parameters, sums, strict=True):
                parameter.grad = (gradient / plan.expected_batch_size).to(parameter.dtype)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(config, step, steps)
            optimizer.step()
            optimizer.zero_grad()
    return CanaryRun(scores, is_in)


def _canaries(
    chosen: NDArray[np.int64], parameters: Sequence[Tensor], bound: float, grid: float | None
) -> ClippedSum:
    """The sum of canaries on their coordinates; each is clipped from ten times the bound."""
    total = empty_sum(parameters, bound, grid)
    ends = np.cumsum([parameter.numel() for parameter in parameters])
    if not len(chosen):
        return total
    one = clip_and_sum([torch.tensor([[10 * bound]])], bound, grid).tensors[0]
    flat = torch.zeros(int(ends[-1]), dtype=torch.int64)
    flat[torch.from_numpy(chosen)] = one
    pieces = torch.tensor_split(flat, torch.from_numpy(ends[:-1]))
    return total + ClippedSum(
        tuple(
            piece.view(parameter.shape).to(parameter.device)
            for piece, parameter in zip(pieces, parameters, strict=True)
        ),
        bound,
        grid,
    )
