"""The audit finds one site that adds no noise, and passes a study in which all sites add it."""

from pathlib import Path

import numpy as np
import pytest

import tests.support.mutants.shared_updates  # noqa: F401
from cloister.audit.audited_site import audited_site
from cloister.audit.site_noise import COORDINATES, site_noise
from cloister.client.site import Site
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from tests.support.entropy import FromNormals
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe

NAMES = ("site 1", "site 2", "site 3")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study")


class Silent(FromNormals):
    """Claims to be private and adds nothing."""

    def normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


@pytest.fixture
def shared(tmp_path: Path) -> Recipe:
    return small_recipe(
        tmp_path,
        "data.sites=3",
        "data.public_records=20",
        "data.partition=iid",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "training.expected_batch_size=5",
        "privacy.noise=shared",
    )


# The shipped count finds one share of thirty that is missing; of three sites' a fiftieth of it
# does, by ten standard deviations.
@pytest.fixture(params=[2_000, pytest.param(COORDINATES, marks=pytest.mark.nightly)])
def coordinates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many coordinates of a sum's noise are looked at."""
    monkeypatch.setattr("cloister.audit.site_noise.COORDINATES", request.param)
    return int(request.param)


# Noise of the sites' own is sound in tests/cli/test_audit.py, too.
@pytest.mark.usefixtures("coordinates")
@pytest.mark.parametrize("which", [pytest.param("recipe", marks=pytest.mark.nightly), "shared"])
def test_sound_sites_are_not_refuted(which: str, request: pytest.FixtureRequest) -> None:
    study = request.getfixturevalue(which)
    assert [c for c in site_noise(study, audited_site(study, 6, 2), NAMES) if c.refuted] == []


@pytest.mark.usefixtures("coordinates")
@pytest.mark.parametrize("which", ["recipe", "shared"])
def test_one_site_that_drops_its_noise_is_refuted(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = request.getfixturevalue(which)
    entropy_of = Site.entropy

    def dropped(at: Site, plan: Plan, round_number: int) -> Entropy:
        return Silent() if at.name == "site 2" else entropy_of(at, plan, round_number)

    monkeypatch.setattr(Site, "entropy", dropped)
    loudness, *_ = site_noise(recipe, audited_site(recipe, 6, 2), NAMES)
    assert loudness.refuted


# The others run nightly, and their kinds in the tests of evaluations and votes.
OFTEN = ("updates under the same shared masks in every round",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly)
        for name in of_part("shared updates")
    ],
)
def test_each_mutant_of_a_sum_is_refuted_by_its_check(
    shared: Recipe, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.audit.site_noise.COORDINATES", 2_000)
    audited = audited_site(shared, 6, 2)
    broken(name, monkeypatch)
    found = {check.name for check in site_noise(shared, audited, NAMES) if check.refuted}
    assert MUTANTS[name].check in found
