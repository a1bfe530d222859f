"""The audit passes evaluations with shared noise, and refutes each broken form of them."""

import pytest

import tests.support.mutants.shared_evaluations  # noqa: F401
from cloister.audit import shared_releases
from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.shared_evaluations import shared_evaluation_checks
from cloister.recipe import Recipe
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe

Audited = tuple[Recipe, AuditedSite]
# Evaluations that show a statistic without any noise; most broken noise takes all of the audit's.
FEW = 4


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    recipe = small_recipe(
        tmp_path_factory.mktemp("study"),
        "data.sites=4",
        "data.partition=iid",
        "data.public_records=20",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "training.expected_batch_size=5",
        "privacy.noise=shared",
        "privacy.missing_sites=1",
        "privacy.evaluation_rounds=[1,2]",
    )
    return recipe, audited_site(recipe, 6, 1)


def refuted(audited: Audited) -> set[str]:
    return {check.name for check in shared_evaluation_checks(*audited) if check.refuted}


def test_sound_sums_are_not_refuted(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_releases, "ASKED", FEW)
    assert refuted(audited) == set()


# The others run nightly: more than half a second each.
OFTEN = ("denominators of a sum without noise",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.nightly)
        for name in of_part("shared evaluations")
    ],
)
def test_each_mutant_is_refuted_by_its_check(
    audited: Audited, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in OFTEN or not MUTANTS[name].check.startswith("noise"):
        monkeypatch.setattr(shared_releases, "ASKED", FEW)
    broken(name, monkeypatch)
    assert MUTANTS[name].check in refuted(audited)
