"""DP-AdamBC: Adam with the known noise variance subtracted from its second moment (Tang,
Shpilevskiy & Lécuyer 2024, arXiv:2312.14334, algorithm 1).

    m ← β₁ m + (1 − β₁) g̃          m̂ = m / (1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g̃²         v̂ = v / (1 − β₂ᵗ)
    θ ← θ − η m̂ / √max(v̂ − Φ, γ′)          Φ = (σC / B)²

g̃ is the noised mean gradient. Its noise adds Φ to the mean of v̂ in every coordinate. If Φ is far
above the squared gradients, plain Adam divides all coordinates by the same number, √Φ, and becomes
SGD with momentum. Φ is a constant of the plan, so subtracting it releases nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import nn

# Adam's own (Kingma & Ba 2015, arXiv:1412.6980, section 2), as torch has them.
BETAS = (0.9, 0.999)
# γ′ without noise, where Φ is 0: the square of the ε in torch's Adam, 1e-8.
LEAST_FLOOR = 1e-16
# γ′ over Φ if the recipe states none. In a coordinate with only noise, v̂ has mean Φ and deviation
# √(2 (1 − β₂) / (1 + β₂)) Φ = 0.032 Φ, so it stays at the floor even three deviations above; and no
# step is longer than 1/√0.1 = 3.2 times plain Adam's.
FLOOR_SHARE = 0.1


class AdamBC(torch.optim.Optimizer):
    """Adam with the known variance of the noise subtracted from its second moment.

    Args:
        parameters: The parameters to train.
        lr: η; read from `param_groups` at each step, so that a schedule can set it.
        noise_variance: Φ, the noise variance of each coordinate of the mean gradient.
        floor: γ′; None: `FLOOR_SHARE` of Φ, at least `LEAST_FLOOR`.
        weight_decay: Decoupled, as in AdamW: first θ ← θ − η · decay · θ. The paper has none.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        noise_variance: float,
        floor: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.noise_variance = noise_variance
        self.floor = max(FLOOR_SHARE * noise_variance, LEAST_FLOOR) if floor is None else floor

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step; a parameter without a gradient keeps its value."""
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group["lr"], group["weight_decay"])
        return loss

    def _move(self, parameter: nn.Parameter, lr: float, weight_decay: float) -> None:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        state["step"] += 1
        steps = float(state["step"])
        first = state["exp_avg"].mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        second = state["exp_avg_sq"].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        spread = second / (1 - BETAS[1] ** steps)
        spread.sub_(self.noise_variance).clamp_(min=self.floor).sqrt_()
        parameter.mul_(1 - lr * weight_decay)
        parameter.addcdiv_(first, spread, value=-lr / (1 - BETAS[0] ** steps))


def noise_variance(noise_multiplier: float, bound: float | None, expected_batch_size: int) -> float:
    """Φ = (σC / B)²: the noise variance of each coordinate of a mean gradient; 0 without
    privacy."""
    if bound is None:
        return 0.0
    return math.pow(noise_multiplier * bound / expected_batch_size, 2)
