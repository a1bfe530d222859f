"""Schedules over the steps of a whole study."""

import pytest

from cloister.training.config import TrainingConfig
from cloister.training.optimizer import learning_rate_at


def test_constant_is_constant() -> None:
    config = TrainingConfig(learning_rate=0.3, schedule="constant")
    assert [learning_rate_at(config, step, 5) for step in range(5)] == [0.3] * 5


def test_warm_up_rises_to_the_peak_then_falls_to_zero() -> None:
    config = TrainingConfig(learning_rate=1.0, schedule="warmup-linear", warmup_steps=2)
    rates = [learning_rate_at(config, step, 6) for step in range(6)]
    # Rise 1/2, 1; then (6 - step)/4 for steps 2…5.
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert learning_rate_at(config, 6, 6) == 0.0
