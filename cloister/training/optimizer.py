"""Optimizers and learning-rate schedules for local steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from cloister.training.config import TrainingConfig


def make_optimizer(
    config: TrainingConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Makes a new optimizer for one round."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def learning_rate_at(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Returns the learning rate of one step.

    Args:
        config: Peak and schedule.
        step: From 0, counted over all rounds of the study.
        total_steps: Steps of the whole study.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    falling = max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * (total_steps - step) / falling
