"""Observes a training round from outside: its batches, releases and steps.

No code is replaced: the units are a sequence that records which of them are taken, and a hook
records the gradients that the optimizer gets. So a fault anywhere between sampler and optimizer
shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cloister.adapter.tensors import Adapter
from cloister.audit.statistics import Floats
from cloister.models.network import trained_parameters
from cloister.models.state import read_adapter, write_adapter
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.local import clip_update, local_update
from cloister.training.memory import OptimizerMemory
from cloister.training.optimizer import learning_rate_at, make_optimizer
from cloister.training.shapes import BatchShapes
from cloister.training.shared import shared_gradient
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace


class DrawnUnits(Sequence[UnitExamples]):
    """Units that record, step by step, which of them are taken by index.

    Args:
        units: The units to watch.
    """

    def __init__(self, units: Sequence[UnitExamples]) -> None:
        self._units = units
        self._taken: list[list[int]] = [[]]

    def __len__(self) -> int:
        return len(self._units)

    @overload
    def __getitem__(self, index: int) -> UnitExamples: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[UnitExamples]: ...
    def __getitem__(self, index: int | slice) -> UnitExamples | Sequence[UnitExamples]:
        if isinstance(index, slice):
            return self._units[index]
        self._taken[-1].append(int(index))
        return self._units[index]

    def __iter__(self) -> Iterator[UnitExamples]:
        return iter(self._units)  # iterating over all units is not a draw

    def step(self) -> None:
        """Begins to record the next step."""
        self._taken.append([])

    @property
    def batches(self) -> list[NDArray[np.int64]]:
        """Indices taken in each finished step."""
        return [np.array(taken, dtype=np.int64) for taken in self._taken[:-1]]


@dataclass(frozen=True)
class ObservedRound:
    """The observations of one training round.

    Attributes:
        batches: Indices of the units of each step.
        means: The gradient that the optimizer got in each step, float64 [steps, values].
        delta: The round's update; empty with shared noise.
    """

    batches: list[NDArray[np.int64]]
    means: Floats
    delta: Adapter


def observe_round(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    *,
    entropy: Entropy,
    round_number: int = 1,
    start: Adapter | None = None,
    shapes: BatchShapes | None = None,
    moves: bool = True,
) -> ObservedRound:
    """Runs `local_update`, or `shared_gradient` where noise is shared, and watches it.

    Args:
        workspace: Base, network and task, its trained names already set.
        units: The site's units.
        plan: The site's plan.
        config: The `[training]` section.
        entropy: The source of sampling and noise.
        round_number: From 1.
        start: The global adapter; None: the workspace's.
        shapes: As in `local_update`.
        moves: Whether steps change the parameters; if not, every step's gradients are taken at
            `start`.
    """
    watched = DrawnUnits(units)
    if plan.sharing is not None:
        share = shared_gradient(
            workspace.network,
            workspace.task,
            watched,
            start or workspace.start,
            plan,
            config,
            entropy=entropy,
            shapes=shapes,
            on_step=watched.step,
        )
        step = plan.shared_noise(len(share)).grid / plan.expected_batch_size
        mean = share.astype(np.float64) * step
        return ObservedRound(watched.batches, mean[None], Adapter({}))
    with watched_optimizers(moves) as means:
        delta = local_update(
            workspace.network,
            workspace.task,
            watched,
            start or workspace.start,
            plan,
            config,
            round_number=round_number,
            entropy=entropy,
            shapes=shapes,
            on_step=watched.step,
        )
    return ObservedRound(watched.batches, np.array(means), delta)


@contextmanager
def watched_optimizers(moves: bool = True) -> Iterator[list[Floats]]:
    """Records the gradients of every optimizer step, each as one vector [values].

    Args:
        moves: Whether steps change the parameters; if not, the learning rate is set to 0.
    """
    means: list[Floats] = []

    def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        means.append(
            np.concatenate(
                [
                    np.zeros(0) if g is None else g.detach().double().cpu().numpy().ravel()
                    for g in gradients
                ]
            )
        )
        if not moves:
            for group in optimizer.param_groups:
                group["lr"] = 0.0

    hook = register_optimizer_step_pre_hook(look)
    try:
        yield means
    finally:
        hook.remove()


def replayed(
    workspace: Workspace,
    means: Sequence[Floats] | Floats,
    plan: Plan,
    config: TrainingConfig,
    *,
    round_number: int,
    start: Adapter,
    memory: OptimizerMemory | None = None,
) -> Adapter:
    """Computes the update from the gradients that the optimizer got, and from nothing else.

    Args:
        workspace: Its trained names as in the round.
        means: `ObservedRound.means`.
        plan: The site's plan.
        config: The `[training]` section.
        round_number: From 1.
        start: The global adapter.
        memory: The optimizer's memory over rounds, as in `local_update`.
    """
    write_adapter(workspace.network, start)
    named = list(trained_parameters(workspace.network))
    ends = np.cumsum([p.numel() for _, p in named])[:-1]
    optimizer = make_optimizer(config, [p for _, p in named], plan)
    if memory is not None:
        memory.give(optimizer, named)
    total, first = plan.num_rounds * plan.local_steps, (round_number - 1) * plan.local_steps
    for step, mean in enumerate(means, first):
        for (_, parameter), piece in zip(named, np.split(mean, ends), strict=True):
            gradient = torch.from_numpy(piece).view(parameter.shape)
            parameter.grad = gradient.to(parameter.device, parameter.dtype)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(
                config, step, total, is_probe=config.is_probe(round_number)
            )
        optimizer.step()
        optimizer.zero_grad()
    if memory is not None:
        memory.take(optimizer, named)
    delta = read_adapter(workspace.network) - start.select([name for name, _ in named])
    return clip_update(delta, plan.max_update_norm)


def plain_steps(config: TrainingConfig) -> TrainingConfig:
    """The same training as plain SGD, so that the optimizer gets exactly the release; questions
    hold the whole adapter."""
    return replace(
        config,
        mode="local-steps",
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        proximal=0.0,
        schedule="constant",
        warmup_steps=0,
        adapter_dtype=None,
    )
