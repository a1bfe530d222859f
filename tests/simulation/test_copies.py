"""A study on a file with copies: records are the units, the plan says how many rows count."""

import json
from pathlib import Path

import pytest

from cloister.data.augment.files import AugmentOptions, augment_file
from cloister.data.step_log import log_of
from cloister.ledger.stated import COUPLED
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.simulation.study import check_records, prepare, units_of
from tests.support.studies import small_recipe

COPIES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study whose training file has copies, made by a step that coupled units before."""
    folder = tmp_path_factory.mktemp("study")
    small_recipe(folder)
    plain = folder / "train.jsonl"
    augment_file(plain, folder / "more.jsonl", AugmentOptions(copies=COPIES))
    log = log_of(folder / "more.jsonl")
    written = json.loads(log.read_text())
    before = {"command": "split", "couples_units": True}
    log.write_text(json.dumps(written | {"steps": [before, *written["steps"]]}))
    return folder


def recipe_of(folder: Path, *assignments: str) -> Recipe:
    return small_recipe(folder, f"data.train='{folder / 'more.jsonl'}'", *assignments)


def test_units_are_records_and_each_is_at_one_site(folder: Path) -> None:
    study = prepare(recipe_of(folder, f"privacy.max_rows_per_record={COPIES + 1}"))
    census = study.census()
    assert (census.units, census.largest) == (80, COPIES + 1)
    assert census.records > 200
    assert {plan.max_records for plan in study.plans.values()} == {COPIES + 1}
    encoded = [units_of(study, name).units for name in study.names]
    assert [len(units) for units in encoded] == [40, 40]
    assert sum(len(unit) for units in encoded for unit in units) == census.records
    assert not [note for note in check_records(study) if "never used" in note]


def test_copies_that_no_recipe_counts_are_said_to_be_unused(folder: Path) -> None:
    study = prepare(recipe_of(folder))
    unused = study.census().records - 80
    (note,) = [note for note in check_records(study) if "never used" in note]
    assert note.startswith(f"{unused} of {study.census().records} rows are never used")
    assert all(len(unit) == 1 for name in study.names for unit in units_of(study, name).units)


def test_a_run_costs_what_it_costs_without_copies_and_says_what_units_are_of(
    folder: Path, tmp_path: Path
) -> None:
    promised = {}
    for name, recipe in (
        ("plain", small_recipe(folder, "federation.num_rounds=1")),
        ("copies", recipe_of(folder, "federation.num_rounds=1", "privacy.max_rows_per_record=4")),
    ):
        run = RunDirectory.create(tmp_path / name, recipe)
        result = simulate(recipe, run, "local")
        promised[name] = [site.promise.epsilon for site in result.sites]
        card = (tmp_path / name / "adapter" / "README.md").read_text()
        path = run.ledger(result.sites[0].name)
        coupled = verify(LedgerFile(path).entries(), str(path)).history.couples_units
        assert coupled is (COUPLED in card) is (name == "copies")
    assert promised["plain"] == promised["copies"]
