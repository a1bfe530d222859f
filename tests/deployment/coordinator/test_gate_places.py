"""Places of connections and rates of handshakes: strangers never keep a member out."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.deployment.coordinator import gate_rates
from cloister.deployment.coordinator.gate_places import Places, network_of
from cloister.deployment.coordinator.gate_rates import TRUSTED, Rates


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),  # as a socket on :: sees it
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("no address", "no address"),
    ],
)
def test_an_address_counts_with_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_newcomer_always_gets_a_place_and_the_largest_network_pays() -> None:
    places = Places(strangers=6, per_network=4, members=2, per_member=1)
    assert [places.enter(f"a{number}", "a") for number in range(4)] == [None] * 4
    assert places.enter("a4", "a") == "a0"  # its own network's oldest
    assert places.enter("b0", "b") is None
    assert places.enter("c0", "c") is None
    assert places.enter("d0", "d") == "a1"  # all are taken: the oldest of the network with most
    assert places.enter("e0", "e") == "a2"
    assert places.enter("f0", "f") == "a3"
    assert places.enter("g0", "g") == "a4"  # each has one: the oldest
    assert places.taken() == (6, 0)


def test_members_have_places_of_their_own_and_none_has_all() -> None:
    places = Places(strangers=2, per_network=2, members=3, per_member=2)
    for key in range(3):
        places.enter(key, "a")
        assert places.belongs(key, "ward") is (key < 2)
    assert places.belongs(1, "ward")  # each request says so again
    assert places.enter(3, "a") is None
    assert places.belongs(3, "clinic")
    assert places.enter(4, "a") is None
    assert not places.belongs(4, "third")  # all members' places are taken
    places.leave(0)
    assert places.belongs(4, "third")
    assert places.belongs(1, "clinic") is True  # another member speaks on it
    assert places.taken() == (1, 3)


@given(
    st.lists(st.tuples(st.sampled_from("eebl"), st.integers(0, 9), st.integers(0, 3)), max_size=200)
)
def test_no_bound_is_ever_passed(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes, speaks and goes; who lost its place is told once, and has none."""
    places = Places(strangers=5, per_network=3, members=4, per_member=2)
    waiting: dict[int, str] = {}
    sites: dict[int, str] = {}
    for number, (what, who, where) in enumerate(steps):
        known = [*waiting, *sites]
        if what == "e":
            loser = places.enter(number, f"n{where}")
            waiting[number] = f"n{where}"
            if loser is not None:
                assert loser in waiting
                del waiting[loser]  # type: ignore[arg-type]
        elif known:
            key = known[who % len(known)]
            if what == "b":
                if places.belongs(key, f"s{where}"):
                    waiting.pop(key, None)
                    sites[key] = f"s{where}"
            else:
                places.leave(key)
                waiting.pop(key, None)
                sites.pop(key, None)
        assert places.taken() == (len(waiting), len(sites))
        assert len(waiting) <= 5
        assert max(Counter(waiting.values()).values(), default=0) <= 3
        assert len(sites) <= 4
        assert max(Counter(sites.values()).values(), default=0) <= 2


def test_a_network_that_costs_many_handshakes_is_not_heard_until_it_has_waited() -> None:
    rates = Rates(burst=2, per_second=0.5)
    for _ in range(2):
        assert rates.allows("a", 0.0)
        rates.spend("a", 0.0)
    assert not rates.allows("a", 0.0)
    assert rates.allows("b", 0.0)
    assert not rates.allows("a", 1.0)
    assert rates.allows("a", 2.0)
    rates.spend("a", 2.0)
    assert not rates.allows("a", 3.0)
    assert rates.allows("a", 1e9)


def test_a_network_of_a_member_s_is_heard() -> None:
    rates = Rates(burst=1, per_second=0.0)
    rates.spend("a", 0.0)
    assert not rates.allows("a", 0.0)
    rates.trust("a", 0.0)
    for _ in range(5):
        rates.spend("a", 1.0)
        assert rates.allows("a", 1.0)
    assert not rates.allows("a", TRUSTED + 1)


def test_only_so_many_networks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_rates, "MOST_NETWORKS", 3)
    rates = Rates(burst=1, per_second=0.0)
    for network in "abcd":
        rates.spend(network, 0.0)
        rates.trust(f"{network}2", 0.0)
    assert [rates.allows(network, 0.0) for network in "abcd"] == [True, False, False, False]
    assert len(rates._tokens) == len(rates._trusted) == 3
