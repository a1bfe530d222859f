"""Keeps an optimizer's state between the rounds of a study: its moments and its number of steps.

If the optimizer started again in every round of one step, it would know one gradient only, and
AdamW's first step is the sign of it: under privacy the sign of the noise. So a site keeps the
state. It is a function of the noised sums alone (`training.local`: noise is added once to each
step's sum, and a round is charged as one release per step). So it reveals no more about a record
than those sums: it is post-processing and costs no further ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.training.config import TrainingConfig

# torch's name of a parameter's step count. Float32 counts exactly up to 2²⁴; a study has at most
# 10⁵ steps.
STEP = "step"


def kept_moments(config: TrainingConfig) -> tuple[str, ...]:
    """Returns torch's names of an optimizer's moments; empty if it has none."""
    if config.optimizer == "sgd":
        return ("momentum_buffer",) if config.momentum else ()
    return ("exp_avg", "exp_avg_sq", STEP)


def memory_shapes(config: TrainingConfig, trained: Shapes) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of a memory: 8 bytes per parameter for Adam, 4 for momentum.

    Args:
        config: Names the optimizer.
        trained: Shapes of all tensors that train in any round.
    """
    return {
        f"{name}:{moment}": (1,) if moment == STEP else shape
        for name, shape in trained.items()
        for moment in kept_moments(config)
    }


@dataclass
class OptimizerMemory:
    """An optimizer's memory between two rounds.

    Attributes:
        config: Names the optimizer.
        state: The moments of every parameter that may train, named as in `memory_shapes`; zero
            before its first step.
    """

    config: TrainingConfig
    state: Adapter

    @classmethod
    def empty(cls, config: TrainingConfig, trained: Shapes) -> OptimizerMemory:
        """Returns the memory before the first step."""
        shapes = memory_shapes(config, trained)
        return cls(config, Adapter({n: np.zeros(s, np.float32) for n, s in shapes.items()}))

    def give(
        self, optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, nn.Parameter]]
    ) -> None:
        """Writes the remembered moments into a new optimizer."""
        for name, parameter in named:
            kept = {m: self._tensor(f"{name}:{m}", parameter, m) for m in kept_moments(self.config)}
            if kept and (STEP not in kept or float(kept[STEP]) > 0):
                optimizer.state[parameter] = kept

    def take(
        self, optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, nn.Parameter]]
    ) -> None:
        """Reads an optimizer's state; a parameter that was not trained keeps its former state.

        A state that is not finite, as after divergence, is dropped: the next round starts without
        memory.
        """
        found = {}
        for name, parameter in named:
            state: dict[str, Any] = optimizer.state.get(parameter, {})
            for moment in kept_moments(self.config):
                if state.get(moment) is not None:
                    value = torch.as_tensor(state[moment]).detach()
                    array = value.to(device="cpu", dtype=torch.float32).numpy()
                    found[f"{name}:{moment}"] = array.reshape(-1) if moment == STEP else array
        whole = self.state.replace(Adapter(found))
        self.state = whole if whole.is_finite() else whole.zeros()

    def _tensor(self, key: str, parameter: nn.Parameter, moment: str) -> Tensor:
        value = torch.from_numpy(self.state[key].copy())
        if moment == STEP:
            return value[0].clone()
        return value.to(device=parameter.device, dtype=parameter.dtype)
