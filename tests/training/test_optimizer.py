"""Schedules over the steps of a whole study, and Adam without the noise's variance."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cloister.errors import UsageError
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.plan import make_plan
from cloister.training.adam_bc import BETAS, FLOOR_SHARE, AdamBC, noise_variance
from cloister.training.config import TrainingConfig
from cloister.training.optimizer import learning_rate_at, make_optimizer


def test_constant_is_constant() -> None:
    config = TrainingConfig(learning_rate=0.3, schedule="constant")
    assert [learning_rate_at(config, step, 5) for step in range(5)] == [0.3] * 5


def test_warm_up_rises_to_the_peak_then_falls_to_zero() -> None:
    config = TrainingConfig(learning_rate=1.0, schedule="warmup-linear", warmup_steps=2)
    rates = [learning_rate_at(config, step, 6) for step in range(6)]
    # Rise 1/2, 1; then (6 - step)/4 for steps 2…5.
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert learning_rate_at(config, 6, 6) == 0.0


def test_a_cosine_rises_likewise_and_falls_along_half_a_cosine() -> None:
    config = TrainingConfig(learning_rate=2.0, schedule="warmup-cosine", warmup_steps=2)
    rates = [learning_rate_at(config, step, 6) for step in range(6)]
    # Rise 1, 2; then 1 + cos(π · (step - 2)/4).
    falling = [1 + math.cos(math.pi * at / 4) for at in range(4)]
    assert rates == pytest.approx([1.0, 2.0, *falling])
    assert learning_rate_at(config, 6, 6) == 0.0


def test_rounds_of_the_head_alone_have_their_own_peak_on_the_same_schedule() -> None:
    config = TrainingConfig(learning_rate=1.0, probe_learning_rate=3.0, probe_rounds=2)
    rounds = range(1, 5)
    rates = [learning_rate_at(config, n - 1, 4, is_probe=config.is_probe(n)) for n in rounds]
    assert rates == pytest.approx([3.0, 2.25, 0.5, 0.25])  # the fall is (4 - step)/4
    without = TrainingConfig(learning_rate=1.0, probe_rounds=2)
    assert learning_rate_at(without, 1, 4, is_probe=True) == 0.75


def papers(gradients: np.ndarray, rate: float, phi: float, floor: float) -> np.ndarray:
    """Algorithm 1 of Tang et al. 2024, from θ = 0, in float64."""
    beta1, beta2 = BETAS
    first = second = moved = np.zeros(gradients.shape[1])
    for t, g in enumerate(gradients, 1):
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * g**2
        unbiased = second / (1 - beta2**t) - phi
        moved = moved - rate * first / (1 - beta1**t) / np.sqrt(np.maximum(unbiased, floor))
    return moved


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, rows: np.ndarray) -> None:
    for row in rows:
        parameter.grad = torch.tensor(row, dtype=parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize(("phi", "floor"), [(0.04, 5e-8), (0.04, 4e-3), (0.0, 1e-16)])
def test_adam_bc_is_the_paper_s_formula(phi: float, floor: float) -> None:
    rows = np.random.default_rng(0).normal(0.1, 0.2, size=(12, 40))
    parameter = nn.Parameter(torch.zeros(40, dtype=torch.float64))
    stepped(AdamBC([parameter], 0.01, phi, floor), parameter, rows)
    assert parameter.detach().numpy() == pytest.approx(papers(rows, 0.01, phi, floor), rel=1e-9)


def test_without_noise_it_is_adam_and_decays_as_adamw() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 30))
    ours, torch_s = (nn.Parameter(torch.ones(30, dtype=torch.float64)) for _ in range(2))
    stepped(AdamBC([ours], 0.02, 0.0, weight_decay=0.1), ours, rows)
    stepped(torch.optim.AdamW([torch_s], lr=0.02, weight_decay=0.1), torch_s, rows)
    assert ours.detach().numpy() == pytest.approx(torch_s.detach().numpy(), rel=1e-6)


def test_coordinates_drowned_in_noise_differ_again_by_their_gradient() -> None:
    """What the paper is about: under plain Adam all coordinates are divided by the noise alone."""
    rng = np.random.default_rng(2)
    means = np.array([0.05, 0.5])  # the noise's deviation is 1
    rows = means + rng.normal(size=(4000, 2))
    ends = []
    for optimizer in (
        lambda p: torch.optim.AdamW([p], lr=1e-3, weight_decay=0.0),
        lambda p: AdamBC([p], 1e-3, 1.0, 1e-3),
    ):
        parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        stepped(optimizer(parameter), parameter, rows)
        ends.append(parameter.detach().numpy())
    plain, corrected = (end[1] / end[0] for end in ends)
    assert plain > 6  # near the ratio of the gradients, 10: SGD
    assert corrected < plain / 2  # towards 1: Adam's steps are alike whatever the gradient


def test_the_noise_that_is_taken_off_is_the_plan_s() -> None:
    plan = make_plan(
        PrivacyConfig(noise_multiplier=2.0, max_grad_norm=3.0),
        public_records=100,
        expected_batch_size=10,
        local_steps=1,
        num_rounds=2,
        sites=1,
    )
    config = TrainingConfig(mode="local-steps", optimizer="adam-bc", expected_batch_size=10)
    optimizer = make_optimizer(config, [nn.Parameter(torch.zeros(1))], plan)
    assert isinstance(optimizer, AdamBC)
    assert optimizer.noise_variance == pytest.approx((2.0 * 3.0 / 10) ** 2)
    assert optimizer.floor == pytest.approx(FLOOR_SHARE * optimizer.noise_variance)
    assert noise_variance(0.0, None, 10) == 0.0


def test_a_floor_without_the_optimizer_that_has_one_is_refused() -> None:
    with pytest.raises(UsageError, match='set optimizer = "adam-bc"'):
        TrainingConfig(mode="local-steps", optimizer="adamw", second_moment_floor=1e-8)
