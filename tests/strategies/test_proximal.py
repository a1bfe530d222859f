"""The proximal step towards a study's starting adapter."""

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.recipe import parse_recipe
from cloister.strategies.proximal import pulled
from cloister.strategies.strategy import ServerState


def adapter(*values: float) -> Adapter:
    return Adapter({"head.weight": np.array(values, np.float32)})


def test_the_step_minimizes_its_objective() -> None:
    """½ ‖y − x‖² + μ/2 ‖y − x₀‖² is least at the step's result, by a search around it."""
    x, x_0, mu = np.array([3.0, -1.0]), np.array([1.0, 1.0]), 0.25
    moved = pulled(ServerState(adapter(*x), 4), adapter(*x_0), mu)
    found = moved.adapter["head.weight"].astype(float)

    def objective(y: np.ndarray) -> float:
        return float(((y - x) ** 2).sum() / 2 + mu * ((y - x_0) ** 2).sum() / 2)

    # (3 + 0.25 · 1) / 1.25 = 2.6 and (−1 + 0.25) / 1.25 = −0.6
    assert found == pytest.approx([2.6, -0.6], abs=1e-6)  # float32
    for step in np.array([[0.01, 0], [-0.01, 0], [0, 0.01], [0, -0.01]]):
        assert objective(found + step) > objective(found)
    assert moved.round == 4


def test_no_weight_changes_nothing_and_memory_stays() -> None:
    state = ServerState(adapter(1.0), 2, {"momentum": adapter(5.0)})
    assert pulled(state, adapter(9.0), 0.0) is state
    assert pulled(state, adapter(9.0), 1.0).memory == state.memory


def test_a_strategy_that_writes_new_factors_refuses_it() -> None:
    from cloister.errors import RecipeError

    with pytest.raises(RecipeError, match=r"federation\.proximal_start: flexlora writes"):
        parse_recipe(
            "",
            [
                "strategy.name=flexlora",
                "lora.train=both",
                "training.mode=local-steps",
                "federation.proximal_start=0.1",
            ],
        )
    assert parse_recipe("", ["federation.proximal_start=0.1"]).federation.proximal_start == 0.1
