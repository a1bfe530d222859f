"""A site's round with shared noise: it sends one gradient and takes no step itself.

    site         Poisson batch -> clipped gradients on the shared grid -> sum -> share of the noise
    coordinator  total of the sites' integers -> · γ / (sites · expected batch) -> one step

DP-FedSGD: the mean over sites is the gradient of one site with all records (McMahan et al. 2018,
arXiv:1710.06963, without sampling of sites).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.errors import RefusedError
from cloister.models.network import Network, trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan
from cloister.tasks.task import Task
from cloister.training.config import TrainingConfig
from cloister.training.gradients import Summing, clipped_gradient_sum, per_record_hooks
from cloister.training.local import clip_update
from cloister.training.optimizer import learning_rate_at
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.units import UnitExamples


def shared_gradient(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    start: Adapter,
    plan: Plan,
    config: TrainingConfig,
    *,
    entropy: Entropy,
    shapes: BatchShapes | None = None,
    summing: Summing | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> NDArray[np.int64]:
    """Computes one batch's clipped sum and adds this site's share of the noise.

    Args:
        network: Scratch space, its trained names already set.
        task: The task.
        units: The site's encoded records by unit; private, of any number.
        start: The global adapter.
        plan: The constants on which the guarantee depends; its noise is shared.
        config: The `[training]` section.
        entropy: The source of sampling and noise.
        shapes: As in `local_update`.
        summing: As in `local_update`.
        on_step: Called after the batch.

    Returns:
        Integers in steps of the shared grid [values], tensors in order of their names.

    Raises:
        RefusedError: The plan's noise is not shared, or has more than one step a round.

    Guarantees:
        One draw of the plan's sampler and one share of its noise, for any records. The share alone
        is too little noise: the result must be masked before it leaves.
    """
    if plan.local_steps != 1 or plan.max_grad_norm is None:
        raise RefusedError("shared noise needs one step per round and a clip bound")
    write_adapter(network, start)
    named = list(trained_parameters(network))
    noise = plan.shared_noise(sum(parameter.numel() for _, parameter in named))
    mechanism = Mechanism(plan, entropy)
    with per_record_hooks(network):
        batch = [units[index] for index in mechanism.draw(len(units))]
        total = (clipped_gradient_sum if summing is None else summing)(
            network,
            task,
            batch,
            plan.max_grad_norm,
            shapes or one_by_one(task.max_length),
            noise.grid,
        )
    by_name = dict(zip((name for name, _ in named), total.tensors, strict=True))
    ordered = tuple(by_name[name] for name in sorted(by_name))
    on_step()
    return mechanism.release_share(ClippedSum(ordered, total.bound, total.coarse))


def shared_step(
    total: NDArray[np.int64],
    shapes: Shapes,
    plan: Plan,
    config: TrainingConfig,
    *,
    round_number: int,
    sites: int,
) -> Adapter:
    """Turns a round's total into the step of the adapter, before the server's optimizer.

    Args:
        total: The sum over sites, in steps of the grid [values].
        shapes: Shapes of the tensors that train in the round.
        plan: The plan of every site.
        config: Learning rate and schedule.
        round_number: From 1.
        sites: Number of sites in the total.

    Returns:
        −rate times the mean gradient, of norm at most `plan.max_update_norm`: post-processing.

    Raises:
        RefusedError: The plan's noise is not shared.
    """
    is_probe = config.is_probe(round_number)
    rate = learning_rate_at(config, round_number - 1, plan.num_rounds, is_probe=is_probe)
    scale = -rate * plan.shared_noise(len(total)).grid / (plan.expected_batch_size * sites)
    tensors, at = {}, 0
    for name in sorted(shapes):
        count = math.prod(shapes[name])
        values = total[at : at + count].astype(np.float64) * scale
        tensors[name] = values.astype(np.float32).reshape(shapes[name])
        at += count
    if at != len(total):
        raise ValueError(f"{len(total)} values for shapes of {at}")
    return clip_update(Adapter(tensors), plan.max_update_norm)
