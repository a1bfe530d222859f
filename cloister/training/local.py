"""One round at a site: local steps from the global adapter, and their delta.

    for each of the plan's local steps:
        draw a Poisson batch at the plan's rate           (privacy.sampling)
        sum the units' gradients, each clipped             (privacy.clipping)
        add noise once                       (privacy.noise, or privacy.correlated_noise)
        divide by the plan's expected batch size, step     (optimizer)
    send the clipped difference to the start

Abadi et al. 2016 (arXiv:1607.00133), algorithm 1, at each site; without privacy the same loop
runs without clip and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cloister.adapter.factor_pairs import cut_shapes
from cloister.adapter.tensors import Adapter
from cloister.models.handed_states import taking_any
from cloister.models.network import Network, trained_parameters
from cloister.models.state import read_adapter, write_adapter
from cloister.privacy.correlated_noise import BandedStep
from cloister.privacy.entropy import Entropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan
from cloister.tasks.task import Task
from cloister.training.batches import tokens_of_a_pass
from cloister.training.config import TrainingConfig
from cloister.training.gradients import (
    Summing,
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
)
from cloister.training.memory import OptimizerMemory
from cloister.training.optimizer import learning_rate_at, make_optimizer
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.units import UnitExamples


def local_update(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    start: Adapter,
    plan: Plan,
    config: TrainingConfig,
    *,
    round_number: int,
    entropy: Entropy,
    rank: int | None = None,
    center: Adapter | None = None,
    shapes: BatchShapes | None = None,
    most_value: float | None = None,
    summing: Summing | None = None,
    memory: OptimizerMemory | None = None,
    banded: BandedStep | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Adapter:
    """Runs one round's local steps.

    Args:
        network: Scratch space, its trained names already set; left at the end of the local steps.
        task: The task.
        units: The site's encoded records by unit; private, of any number.
        start: The global adapter: a value for every trained parameter, and possibly others.
        plan: The constants on which the guarantee depends.
        config: Optimizer, schedule and physical batch.
        round_number: From 1.
        entropy: The source of sampling and noise.
        rank: Rank of the adapters that this site trains; None: the network's. The rest of `start`'s
            pairs must be zero: then its gradients are zero, and its noise is left out.
        center: The adapter to which the proximal term pulls, and from which the delta is counted;
            None: `start`.
        shapes: Shapes of private passes, from the machine's proof; None: one record at a time,
            which needs no proof and takes several times as long.
        most_value: The largest absolute value of a parameter after a step, up to which isolation
            was tested; None: no limit.
        summing: Sums a private batch over several processes (`Workspace.summing`); None: in this
            process.
        memory: The optimizer's memory at the start; it is changed in place to that at the end.
            None: the optimizer starts without memory.
        banded: With correlated noise, the step, with the noise of the steps before it, which is
            changed in place; else None.
        on_step: Called after each step, for progress at the site only.

    Returns:
        The delta of the tensors trained in this round, of norm at most `plan.max_update_norm`.

    Guarantees:
        With privacy on, a function of the noised sums alone: `plan.local_steps` releases of the
        plan's event, for any records, including empty batches. The same holds for `memory`.
    """
    write_adapter(network, start)
    named = list(trained_parameters(network))
    names = [name for name, _ in named]
    parameters = [parameter for _, parameter in named]
    around = start if center is None else center
    begun = [torch.tensor(around[name], device=p.device) for name, p in named]
    used = cut_shapes({n: tuple(p.shape) for n, p in named}, rank)
    optimizer = make_optimizer(config, parameters, plan)
    if memory is not None:
        memory.give(optimizer, named)
    total_steps = plan.num_rounds * plan.local_steps
    first = (round_number - 1) * plan.local_steps
    is_probe = config.is_probe(round_number)
    private = plan.max_grad_norm is not None
    mechanism = Mechanism(plan, entropy, banded)
    with per_record_hooks(network) if private else taking_any(network):
        for step in range(first, first + plan.local_steps):
            drawn = mechanism.draw(len(units))
            batch = [units[index] for index in drawn]
            sums = _gradient_sums(network, task, batch, mechanism, config, shapes, summing)
            for name, parameter, gradient, at_start in zip(
                names, parameters, sums, begun, strict=True
            ):
                mean = gradient / plan.expected_batch_size
                if rank is not None:
                    inside = torch.zeros_like(mean)
                    inside[tuple(slice(size) for size in used[name])] = 1.0
                    mean = mean * inside
                if config.proximal:
                    mean = mean + config.proximal * (parameter.detach() - at_start)
                parameter.grad = mean.to(parameter.dtype)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(config, step, total_steps, is_probe=is_probe)
            optimizer.step()
            if most_value is not None:
                _hold_within(parameters, most_value)
            optimizer.zero_grad()
            on_step()
    if memory is not None:
        memory.take(optimizer, named)
    delta = read_adapter(network) - around.select(names)
    return clip_update(delta, plan.max_update_norm)


def _hold_within(parameters: Sequence[Tensor], most_value: float) -> None:
    """Clamps the trained parameters; they depend on noised sums alone, so this costs no privacy."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(-most_value, most_value)


def clip_update(delta: Adapter, bound: float | None) -> Adapter:
    """Scales a delta down to norm `bound`; a delta that is not finite becomes zero."""
    if bound is None:
        return delta
    if not delta.is_finite():
        return delta.zeros()
    norm = delta.norm()
    return delta.scale(bound / norm) if norm > bound else delta


def _gradient_sums(
    network: Network,
    task: Task,
    batch: Sequence[UnitExamples],
    mechanism: Mechanism,
    config: TrainingConfig,
    shapes: BatchShapes | None,
    summing: Summing | None,
) -> tuple[Tensor, ...]:
    bound = mechanism.plan.max_grad_norm
    if bound is None:
        most = config.physical_batch_tokens or tokens_of_a_pass(network.device)
        return plain_gradient_sum(network, task, batch, most)
    shapes = shapes or one_by_one(task.max_length)
    sums = clipped_gradient_sum if summing is None else summing
    return mechanism.release(sums(network, task, batch, bound, shapes, None)).tensors
