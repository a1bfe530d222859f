"""The audit passes a sound study and finds an answer that reveals records."""

from pathlib import Path

import pytest

import tests.support.mutants.answers  # noqa: F401
from cloister.audit.audited_site import audited_site
from cloister.audit.site_answers import answer_checks
from cloister.audit.statistics import Check
from cloister.recipe import Recipe
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return small_recipe(tmp_path_factory.mktemp("study"))


def refuted(recipe: Recipe) -> list[Check]:
    return [check for check in answer_checks(recipe, audited_site(recipe, 6, 2)) if check.refuted]


@pytest.mark.parametrize(
    "assignments",
    [
        ["training.update_dtype=int8", "training.momentum=0.9", "training.proximal=0.1"],
        ["training.optimizer=adam-bc", "lora.train=alternate", "training.local_steps=1"],
        *(
            pytest.param(of, marks=pytest.mark.nightly)
            for of in (
                [],  # as in `make test` by tests/cli/test_audit.py
                ["training.update_dtype=bfloat16"],
                ["lora.train=b-kept"],
                ["lora.train=alternate", "training.probe_rounds=1"],
                ["training.optimizer=adamw", "training.local_steps=3"],
            )
        ),
    ],
)
def test_sound_answers_are_not_refuted(tmp_path: Path, assignments: list[str]) -> None:
    assert refuted(small_recipe(tmp_path, *assignments)) == []


# Half a second each; quick tests of ledger and sampler are in `tests/ledger` and `tests/privacy`.
NIGHTLY = (
    "updates in clear charged in the first round only",
    "updates in clear charged for twice their noise",
    "an update of another adapter in a released round in clear",
    "noise of an update that was cut off redrawn",
    "noise of an update redrawn after a later round",
    "a site's coins the same in every round",
    "rounds in clear at twice the charged rate",
)


def test_the_mutants_that_run_nightly_are_there() -> None:
    assert set(NIGHTLY) <= set(of_part("answers"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] if name in NIGHTLY else [])
        for name in of_part("answers")
    ],
)
def test_each_mutant_is_refuted_by_its_check(
    recipe: Recipe, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(name, monkeypatch)
    assert MUTANTS[name].check in {check.name for check in refuted(recipe)}
