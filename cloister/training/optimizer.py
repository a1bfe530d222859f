"""Optimizers and learning-rate schedules for local steps."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from cloister.privacy.plan import Plan
from cloister.training.adam_bc import AdamBC, noise_variance
from cloister.training.config import TrainingConfig


def make_optimizer(
    config: TrainingConfig, parameters: Iterable[nn.Parameter], plan: Plan
) -> torch.optim.Optimizer:
    """Makes an optimizer without memory (`cloister.training.memory` restores one).

    Args:
        config: Names the optimizer and its settings.
        parameters: The parameters to train.
        plan: The plan whose noise variance `adam-bc` subtracts.
    """
    if config.optimizer == "adam-bc":
        return AdamBC(
            parameters,
            config.learning_rate,
            noise_variance(plan.step_noise, plan.max_grad_norm, plan.expected_batch_size),
            config.second_moment_floor,
            config.weight_decay,
        )
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


def learning_rate_at(
    config: TrainingConfig, step: int, total_steps: int, *, is_probe: bool = False
) -> float:
    """Returns the learning rate of one step.

    Args:
        config: Peaks and schedule.
        step: From 0, counted over all rounds of the study.
        total_steps: Steps of the whole study.
        is_probe: Whether the step's round is one in which only the head trains
            (`TrainingConfig.is_probe`).
    """
    own = config.probe_learning_rate if is_probe else None
    peak = config.learning_rate if own is None else own
    if config.schedule == "constant":
        return peak
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    falling = max(total_steps - config.warmup_steps, 1)
    left = (total_steps - step) / falling
    if config.schedule == "warmup-cosine":
        # Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5 without restarts.
        return peak * (1 - math.cos(math.pi * left)) / 2
    return peak * left
