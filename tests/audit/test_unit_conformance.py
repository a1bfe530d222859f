"""All records of a person are one unit, whatever the records contain."""

from pathlib import Path

import pytest

import tests.support.mutants.units  # noqa: F401
from cloister.audit.audited_site import AuditedSite, audited_site
from cloister.audit.unit_conformance import unit_check
from cloister.privacy.units import Unit
from cloister.training import units
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.studies import small_recipe

BY_PERSON = (
    "privacy.unit=person",
    "data.person=person",
    "data.partition=person",
    "privacy.max_records_per_person=4",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> AuditedSite:
    return audited_site(small_recipe(tmp_path_factory.mktemp("study"), *BY_PERSON), 8, 3)


def test_a_person_is_one_unit(site: AuditedSite, tmp_path: Path) -> None:
    assert site.plan.unit is Unit.PERSON
    assert len(site.units) == len({record.person for record in site.records}) == 8
    assert not unit_check(site).refuted
    by_record = audited_site(small_recipe(tmp_path), 8, 3)
    assert len(by_record.units) == len(by_record.records)
    assert not unit_check(by_record).refuted


def test_copies_that_are_units_of_their_own_are_refuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = audited_site(small_recipe(tmp_path), 8, 3)
    monkeypatch.setattr(units, "_owner", lambda record, place, unit: place)
    assert unit_check(site).refuted


@pytest.mark.parametrize("name", of_part("units"))
def test_each_mutant_is_refuted_by_its_check(
    site: AuditedSite, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(name, monkeypatch)
    check = unit_check(site)
    assert check.refuted
    assert check.name == MUTANTS[name].check
