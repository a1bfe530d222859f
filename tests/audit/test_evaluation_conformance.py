"""The audit passes private evaluations, and refutes each broken form of them by the named check."""

import pytest

import tests.support.mutants.evaluations  # noqa: F401
from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.evaluation_conformance import evaluation_checks
from cloister.recipe import Recipe
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe

Audited = tuple[Recipe, AuditedSite]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    recipe = small_recipe(
        tmp_path_factory.mktemp("study"),
        "data.person=person",
        "privacy.unit=person",
        "privacy.evaluation_rounds=[1,2]",
    )
    return recipe, audited_site(recipe, 6, 3)


def refuted(audited: Audited) -> set[str]:
    return {check.name for check in evaluation_checks(*audited) if check.refuted}


def test_sound_evaluations_are_not_refuted(audited: Audited) -> None:
    assert refuted(audited) == set()


# The others run nightly: half a second each.
OFTEN = (
    "statistics clipped one by one",
    "denominators without noise",
    "evaluations charged after units are scored",
)


def test_the_mutants_that_run_always_are_there() -> None:
    assert set(OFTEN) <= set(of_part("evaluations"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly)
        for name in of_part("evaluations")
    ],
)
def test_each_mutant_is_refuted_by_its_check(
    audited: Audited, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(name, monkeypatch)
    assert MUTANTS[name].check in refuted(audited)
