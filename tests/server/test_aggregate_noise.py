"""The noise variance that the coordinator computes is that of real aggregates."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.privacy.entropy import OsEntropy
from cloister.recipe import Recipe, parse_recipe
from cloister.server.aggregate_noise import AggregateNoise, aggregate_noise
from cloister.simulation.plans import plans_of
from cloister.strategies.arithmetic import weighted_mean
from cloister.training.local import local_update
from cloister.training.shared import shared_gradient, shared_step
from cloister.training.workspace import Workspace
from tests.support.studies import small_workspace

NAMES = ("a", "b", "c")
SHARED = ("privacy.noise=shared", "privacy.missing_sites=1")
GIVEN = [
    "data.sites=3",
    "data.partition=iid",
    "federation.num_rounds=4",
    "privacy.max_update_norm=1e6",
    "training.learning_rate=2.0",
    "training.schedule=warmup-linear",
    "training.expected_batch_size=20",
]
# Values of several aggregates together: an estimate of a variance from n normals has a relative
# deviation of √(2/n), 1.6 % here, and a wrong formula is off by 25 % and more.
VALUES, CLOSE = 8_000, 0.08


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Workspace:
    return small_workspace(bert)


def variance_of(release: Callable[[], Adapter], scale: int) -> float:
    """Of the values of as many aggregates of no record at all as make `VALUES`."""
    rounds = math.ceil(VALUES / scale)
    means = [np.concatenate([v.ravel() for v in release().values()]) for _ in range(rounds)]
    return float(np.square(np.concatenate(means), dtype=np.float64).mean())


def own_mean(recipe: Recipe, workspace: Workspace, number: int, sites: tuple[str, ...]) -> Adapter:
    """The mean of real updates of sites without records: of their noise alone."""
    plans = plans_of(recipe, NAMES)
    updates = {
        site: local_update(
            workspace.network,
            workspace.task,
            [],
            workspace.start,
            plans[site],
            recipe.training,
            round_number=number,
            entropy=OsEntropy(),
        )
        for site in sites
    }
    weights = dict(zip(NAMES, recipe.strategy.weights, strict=False))  # type: ignore[union-attr]
    return weighted_mean(updates, weights)


@pytest.mark.parametrize(
    ("changes", "number", "sites"),
    [
        (["data.public_records=100"], 1, NAMES),
        (["data.public_records=[60, 100, 400]"], 3, ("a", "c")),
        (["data.public_records=[60, 100, 400]", "strategy.weights=[5.0, 1.0, 2.0]"], 2, NAMES),
        # So short that every update is scaled down to it.
        (["data.public_records=100", "privacy.max_update_norm=0.5"], 1, NAMES),
    ],
    ids=["all alike", "two of three", "weights", "clipped updates"],
)
def test_the_variance_of_own_noise_is_that_of_real_updates(
    workspace: Workspace, changes: list[str], number: int, sites: tuple[str, ...]
) -> None:
    recipe = parse_recipe("", [*GIVEN, *changes])
    size = workspace.start.size
    known = aggregate_noise(recipe, NAMES)(number, sites, size)
    found = variance_of(lambda: own_mean(recipe, workspace, number, sites), size)
    assert found == pytest.approx(known, rel=CLOSE)


@pytest.mark.parametrize("sites", [3, 5])
def test_the_variance_of_shared_noise_is_that_of_real_sums(
    workspace: Workspace, sites: int
) -> None:
    """Each site adds a share, and the honest ones' shares suffice: all together are more."""
    recipe = parse_recipe(
        "",
        [*GIVEN, "data.sites=5", "data.public_records=100", *SHARED],
    )
    names = ("a", "b", "c", "d", "e")
    plan = plans_of(recipe, names)["a"]

    def mean() -> Adapter:
        total = np.sum(
            [
                shared_gradient(
                    workspace.network,
                    workspace.task,
                    [],
                    workspace.start,
                    plan,
                    recipe.training,
                    entropy=OsEntropy(),
                )
                for _ in range(sites)
            ],
            axis=0,
        )
        shapes = workspace.start.shapes
        return shared_step(total, shapes, plan, recipe.training, round_number=2, sites=sites)

    size = workspace.start.size
    known = aggregate_noise(recipe, names)(2, names[:sites], size)
    assert variance_of(mean, size) == pytest.approx(known, rel=CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        ["privacy.enabled=false"],
        ["training.mode=local-steps"],
        ["privacy.site_epsilon=8.0", "privacy.site_noise_forced=true"],
        ["privacy.noise_multiplier=0"],
    ],
)
def test_noise_that_is_absent_or_not_known_is_none(changes: list[str]) -> None:
    known: AggregateNoise = aggregate_noise(parse_recipe("", [*GIVEN, *changes]), NAMES)
    assert known(1, NAMES, 100) == 0.0
    assert aggregate_noise(parse_recipe("", GIVEN), NAMES)(1, (), 100) == 0.0
