"""FedAvg's contract: order does not matter, equal updates pass, weights are the declared ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.strategy import ServerState

START = Adapter({"head.w": np.array([1.0, 2.0]), "lora.b": np.array([0.5])})
updates = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3),
    min_size=1,
).map(
    lambda rows: {
        site: Adapter({"head.w": np.array(row[:2]), "lora.b": np.array(row[2:])})
        for site, row in rows.items()
    }
)


def strategy(**weights: float) -> FedAvg:
    return FedAvg(weights)


def test_the_mean_is_added() -> None:
    delta = {"a": START.scale(2.0), "b": START.zeros()}
    state = strategy().aggregate(ServerState(START), delta)
    assert state.adapter["head.w"].tolist() == [2.0, 4.0]
    assert state.round == 1


def test_declared_weights_count() -> None:
    delta = {"a": START, "b": START.zeros()}
    state = strategy(a=3.0, b=1.0).aggregate(ServerState(START.zeros()), delta)
    assert state.adapter["head.w"].tolist() == [0.75, 1.5]


@given(updates)
def test_arrival_order_changes_no_bit(sites: dict[str, Adapter]) -> None:
    one = strategy().aggregate(ServerState(START), sites).adapter
    other = strategy().aggregate(ServerState(START), dict(reversed(list(sites.items())))).adapter
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@given(updates)
def test_one_site_moves_the_adapter_by_no_more_than_its_share(sites: dict[str, Adapter]) -> None:
    with_it = strategy().aggregate(ServerState(START.zeros()), sites).adapter
    site = next(iter(sites))
    silent = {**sites, site: sites[site].zeros()}
    without = strategy().aggregate(ServerState(START.zeros()), silent).adapter
    bound = sites[site].norm() / len(sites)
    assert (with_it - without).norm() <= bound * (1 + 1e-5) + 1e-6


def test_a_zero_update_stays_zero() -> None:
    state = strategy().aggregate(ServerState(START), {"a": START.zeros()})
    assert (state.adapter - START).norm() == 0.0


def test_tensors_that_did_not_travel_stay() -> None:
    part = {"a": Adapter({"head.w": np.array([1.0, 1.0])})}
    state = strategy().aggregate(ServerState(START), part)
    assert state.adapter["head.w"].tolist() == [2.0, 3.0]
    assert state.adapter["lora.b"].tolist() == [0.5]


def test_no_update_is_no_round() -> None:
    with pytest.raises(ValueError, match="no update"):
        strategy().aggregate(ServerState(START), {})
