"""The audit passes correlated noise, and refutes each broken form of it by the named check."""

import pytest

import tests.support.mutants.bands  # noqa: F401
from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.banded_conformance import banded_checks
from cloister.recipe import Recipe
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe

Audited = tuple[Recipe, AuditedSite]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    recipe = small_recipe(
        tmp_path_factory.mktemp("study"),
        "training.local_steps=1",
        "federation.num_rounds=6",
        "privacy.noise_bands=3",
    )
    return recipe, audited_site(recipe, 6, 2)


def test_the_mutants_that_run_always_are_there() -> None:
    assert set(OFTEN) <= set(of_part("bands"))


def refuted(audited: Audited) -> set[str]:
    return {check.name for check in banded_checks(*audited) if check.refuted}


def test_sound_correlated_noise_is_not_refuted(audited: Audited) -> None:
    assert refuted(audited) == set()


# The others run nightly: a second each.
OFTEN = ("correlation dropped", "hash of the row number", "lost noise begins anew")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly)
        for name in of_part("bands")
    ],
)
def test_each_mutant_is_refuted_by_its_check(
    audited: Audited, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(name, monkeypatch)
    assert MUTANTS[name].check in refuted(audited)
