"""A round's mechanism allows the planned steps only, each released once, as clipped."""

import dataclasses

import pytest
import torch

from cloister.errors import RefusedError
from cloister.privacy.clipping import clip_and_sum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.mechanism import Mechanism
from tests.support.ledgers import small_plan

CLIPPED = clip_and_sum([torch.tensor([[0.3]])], 1.0)


def mechanism(steps: int = 2) -> Mechanism:
    return Mechanism(dataclasses.replace(small_plan(), local_steps=steps), OsEntropy())


def test_a_step_beyond_the_plan_is_refused() -> None:
    gate = mechanism()
    for _ in range(2):
        gate.draw(10)
        gate.release(CLIPPED)
    with pytest.raises(RefusedError, match="step 3 of a round was asked; the plan has 2"):
        gate.draw(10)


def test_a_batch_is_released_once_and_only_after_it_was_drawn() -> None:
    gate = mechanism()
    with pytest.raises(RefusedError, match="released once"):
        gate.release(CLIPPED)
    gate.draw(10)
    gate.release(CLIPPED)
    with pytest.raises(RefusedError, match="released once"):
        gate.release(CLIPPED)


def test_another_bound_than_the_plan_s_is_refused() -> None:
    gate = mechanism()
    gate.draw(10)
    with pytest.raises(RefusedError, match="clipped to 2"):
        gate.release(clip_and_sum([torch.tensor([[0.3]])], 2.0))
