"""One product of matrices selects the sites that distances one by one select."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.strategies import nearest_updates
from cloister.strategies.nearest_updates import nearest, score


def one_by_one(updates: dict[str, Adapter], near: int, count: int) -> list[str]:
    """The slow twin: every distance from a difference, as the paper writes it."""
    return sorted(sorted(updates), key=lambda site: score(updates, site, near))[:count]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[dict[str, Adapter], int, int]:
    """Updates that are far apart, nearly equal, equal, or on a lattice, where scores tie."""
    sites = draw(st.integers(4, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    center = rng.normal(size=6) * draw(st.sampled_from([0.0, 1.0, 1e3]))
    updates = {}
    for number in range(sites):
        kind = draw(st.sampled_from(["near", "far", "same", "lattice"]))
        size = {"near": 1e-6, "far": 1e2, "same": 0.0, "lattice": 1.0}[kind]
        noise = rng.normal(size=6)
        moved = center + size * (np.round(noise) if kind == "lattice" else noise)
        updates[f"site-{number}"] = Adapter({"a": moved[:4].reshape(2, 2), "b": moved[4:]})
    return updates, draw(st.integers(1, sites - 2)), draw(st.integers(1, sites - 2))


@given(rounds())
def test_the_same_sites_are_selected_as_one_by_one(
    given_round: tuple[dict[str, Adapter], int, int],
) -> None:
    updates, near, count = given_round
    assert set(nearest(updates, near, count)) == set(one_by_one(updates, near, count))


def test_a_piece_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    updates = {str(n): Adapter({"a": rng.normal(size=(5, 7))}) for n in range(6)}
    expected = one_by_one(updates, 3, 2)
    monkeypatch.setattr(nearest_updates, "PIECE", 13)  # two columns of six sites
    assert set(nearest(updates, 3, 2)) == set(expected)


def test_scores_that_are_clear_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    updates = {str(n): Adapter({"a": rng.normal(size=50)}) for n in range(8)}
    expected = one_by_one(updates, 4, 3)
    asked: list[str] = []
    monkeypatch.setattr(nearest_updates, "score", lambda updates, site, near: asked.append(site))
    assert set(nearest(updates, 4, 3)) == set(expected)
    assert asked == []


def test_bounds_that_are_too_narrow_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for rounding, close updates far from zero are told apart by lost digits."""
    monkeypatch.setattr(nearest_updates, "FLOAT32", 0.0)
    monkeypatch.setattr(nearest_updates, "FLOAT64", 0.0)
    rng = np.random.default_rng(1)
    differs = 0
    for _ in range(20):
        shared = 1e6 * rng.uniform(1, 2, size=1)  # its square rounds the others' squares away
        updates = {
            str(n): Adapter({"a": np.append(shared, 1e-2 * rng.normal(size=5))}) for n in range(8)
        }
        differs += set(nearest(updates, 4, 3)) != set(one_by_one(updates, 4, 3))
    assert differs > 0


def test_other_shapes_are_refused() -> None:
    updates = {"a": Adapter({"x": np.ones(2)}), "b": Adapter({"x": np.ones(3)})}
    with pytest.raises(ValueError, match="do not fit"):
        nearest(updates, 1, 1)
