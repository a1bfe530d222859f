"""Noise at the coordinator: a whole site moves the mean by S/K at most, and noise hides it."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.errors import RecipeError
from cloister.privacy.central import CentralPlan, central_plan
from cloister.privacy.entropy import OsEntropy, SeededEntropy
from cloister.recipe import parse_recipe
from cloister.server.central import CentralSum
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.examples import tries
from tests.support.studies import small_recipe


class Silent(SeededEntropy):
    """Adds nothing, so that what is left is the sum."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0))

    def gaussian(self, deviation: float, count: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.zeros(count, dtype=np.int64)


def plan(sites: int = 4, noise: float = 2.0, bound: float = 1.0) -> CentralPlan:
    return CentralPlan(
        sites=sites, rounds=3, max_update_norm=bound, noise_multiplier=noise, delta=1e-5
    )


def mean(updates: Sequence[Adapter], of: CentralPlan) -> Adapter:
    total = CentralSum(of)
    for number, update in enumerate(updates):
        total.add(f"site {number}", update)
    return total.mean(Silent())


def update(*values: float) -> Adapter:
    return Adapter({"a": np.array(values[:2]), "b": np.array([values[2:]])})


def test_short_updates_are_averaged_over_the_declared_sites() -> None:
    found = mean([update(0.3, 0.0, 0.1), update(0.1, 0.2, 0.1)], plan(sites=4))
    assert np.allclose(found["a"], [0.1, 0.05], atol=1e-6)
    assert np.allclose(found["b"], [[0.05]], atol=1e-6)


@given(
    st.lists(
        st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False, width=32)] * 3), min_size=2, max_size=6
    )
)
@settings(deadline=None, max_examples=tries(60))
def test_a_whole_site_moves_the_mean_by_no_more_than_its_share(
    rows: list[tuple[float, ...]],
) -> None:
    """Added or removed, whatever it sends: lengths are clipped here too, the divisor is public."""
    of = plan(sites=5, bound=0.7)
    every = [update(*row) for row in rows]
    apart = (mean(every, of) - mean(every[1:], of)).norm()
    assert apart <= 0.7 / 5 * (1 + 1e-6)


def test_an_update_that_is_no_number_counts_for_nothing() -> None:
    broken = update(math.nan, 1.0, 1.0)
    assert mean([broken, update(0.4, 0.0, 0.0)], plan())["a"][0] == pytest.approx(0.1, rel=1e-5)


def test_the_noise_is_the_plans() -> None:
    size = 50_000
    total = CentralSum(plan(sites=4, noise=2.0, bound=0.5))
    total.add("one", Adapter({"w": np.zeros(size)}))
    found = total.mean(OsEntropy())["w"]
    assert np.std(found) == pytest.approx(2.0 * 0.5 / 4, rel=5 / math.sqrt(2 * size))


def test_it_meets_its_target_over_all_rounds() -> None:
    made = central_plan(3.0, 1e-6, sites=200, rounds=40, max_update_norm=1.0)
    assert 2.95 < made.epsilon_after(40) <= 3.0
    assert made.epsilon_after(1) < 1


FORCED = [
    "privacy.site_epsilon=8.0",
    "privacy.site_noise_forced=true",
    "privacy.max_update_norm=0.2",
]


def test_a_study_states_it_on_its_card(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", *FORCED)
    place = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, place)
    card = (place.adapter / "README.md").read_text()
    assert "whole **site**" in card
    assert "Against the coordinator" in card
    assert all(row["aggregation_error"] is None for row in place.metrics())


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["privacy.site_noise_forced=false"], "at least 100 sites are sensible"),
        (["strategy.name=median", "data.sites=3"], "plain sum"),
        (["strategy.weights=[1.0, 2.0]"], "plain sum"),
        (["lora.train=b-kept"], "updates of the same shape"),
        (["privacy.site_epsilon=-1.0"], "a number from 0.0001"),
    ],
)
def test_what_it_does_not_go_with_is_refused(
    tmp_path: Path, assignments: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        small_recipe(tmp_path / "study", *FORCED, *assignments)


def test_a_hundred_sites_need_not_force_it() -> None:
    many = [
        "data.sites=100",
        "data.public_records=20",
        "training.expected_batch_size=5",
        "privacy.site_epsilon=8.0",
    ]
    assert parse_recipe("", many).privacy.central(100, 3) is not None
