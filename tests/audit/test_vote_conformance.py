"""The audit passes votes, and refutes each broken form of them by the named check."""

import pytest

import tests.support.mutants.votes  # noqa: F401
from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.vote_conformance import vote_checks
from cloister.privacy.plan import Plan
from cloister.privacy.vote_plan import vote_plan
from cloister.recipe import Recipe
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import NOTES, small_recipe

Audited = tuple[Recipe, AuditedSite, Plan]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    recipe = small_recipe(
        tmp_path_factory.mktemp("study"),
        f"task.labels={sorted(NOTES)}",
        "data.person=person",
        "privacy.unit=person",
        "lora.train=none",
    )
    plan = vote_plan(recipe.privacy, public_records=40, candidates=12, rounds=2, sites=3)
    return recipe, audited_site(recipe, 6, 3), plan


def refuted(audited: Audited) -> set[str]:
    return {check.name for check in vote_checks(*audited) if check.refuted}


def test_sound_votes_are_not_refuted(audited: Audited) -> None:
    assert refuted(audited) == set()


# The others run nightly: half a second each.
OFTEN = ("a unit votes twice", "noise dropped on one count")


def test_the_mutants_that_run_always_are_there() -> None:
    assert set(OFTEN) <= set(of_part("votes"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly)
        for name in of_part("votes")
    ],
)
def test_each_mutant_is_refuted_by_its_check(
    audited: Audited, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(name, monkeypatch)
    assert MUTANTS[name].check in refuted(audited)
