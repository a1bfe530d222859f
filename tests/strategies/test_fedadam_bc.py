"""FedAdam without the noise's part of its second moment."""

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.strategies.build import make_strategy
from cloister.strategies.config import StrategyConfig
from cloister.strategies.strategy import ServerState, Strategy
from cloister.testing.strategies import SITES, START, same, updates

OPTIONS = {"learning_rate": 0.3, "momentum": 0.6, "second_momentum": 0.8, "adaptivity": 0.1}


def made(name: str) -> Strategy:
    return make_strategy(StrategyConfig(name=name, **OPTIONS), SITES)  # type: ignore[arg-type]


def test_without_noise_it_is_fedadam_bit_for_bit() -> None:
    plain, corrected = made("fedadam"), made("fedadam-bc")
    one, other = plain.init(START), corrected.init(START)
    rng = np.random.default_rng(1)
    for _ in range(4):
        came = updates(rng)
        one, other = plain.aggregate(one, came), corrected.aggregate(other, came)
    moments = {name: other.memory[name] for name in one.memory}
    assert same(one, ServerState(other.adapter, other.round, moments))


def test_it_follows_the_formula_while_the_noise_changes() -> None:
    """The slow twin: one coordinate, in Python's floats."""
    strategy = made("fedadam-bc")
    state = strategy.init(Adapter({"x": np.zeros(1)}))
    x, m, v, p = 0.0, 0.0, 0.1**2, 0.0
    for mean, noise in ((1.0, 0.04), (-0.5, 0.5), (0.1, 0.0), (0.05, 0.3)):
        state = ServerState(state.adapter, state.round, state.memory, noise)
        state = strategy.aggregate(state, {"a": Adapter({"x": np.array([mean])})})
        m, v, p = 0.6 * m + 0.4 * mean, 0.8 * v + 0.2 * mean**2, 0.8 * p + 0.2 * noise
        x += 0.3 * m / (max(v - p, p / 10) ** 0.5 + 0.1)
        assert float(state.adapter["x"][0]) == pytest.approx(x, rel=1e-5)


def test_it_tells_a_quiet_coordinate_from_a_loud_one_under_noise_that_hides_both() -> None:
    """Adam would take steps of 1 in both for signals of 1 and 0.1; under noise it takes them as
    momentum does, ten to one. The correction brings them nearer."""
    rng, noise, size = np.random.default_rng(2), 1.0, 4000
    signal = np.concatenate([np.full(size, 1.0), np.full(size, 0.1)])
    ratio = {}
    for name in ("fedadam", "fedadam-bc"):
        strategy = make_strategy(StrategyConfig(name=name, adaptivity=1e-6), ("a",))  # type: ignore[arg-type]
        state = strategy.init(Adapter({"x": np.zeros(2 * size)}))
        for _ in range(60):
            mean = Adapter({"x": signal + rng.normal(0, noise, 2 * size)})
            state = ServerState(state.adapter, state.round, state.memory, noise)
            state = strategy.aggregate(state, {"a": mean})
        moved = state.adapter["x"]
        ratio[name] = float(moved[:size].mean() / moved[size:].mean())
    assert 6 < ratio["fedadam"] < 12
    assert ratio["fedadam-bc"] < 0.6 * ratio["fedadam"]
