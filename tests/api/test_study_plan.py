"""A study's plan in Python equals the output of `cloister plan` for its recipe."""

import json
from pathlib import Path

import pytest

import cloister as cl
from cloister.cli.main import run
from cloister.errors import BudgetError, UsageError
from tests.support.studies import small_assignments, small_recipe


def test_it_is_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = cl.Study.of(small_recipe(tmp_path / "study"))
    found = study.plan()
    options = [a for value in small_assignments(tmp_path / "study") for a in ("--set", value)]
    assert run(["plan", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))
    assert run(["plan", *options]) == 0
    told = capsys.readouterr().out
    assert told.split() == str(found).split()
    assert found.recipe == study.recipe.digest()


def test_data_in_memory_are_planned_with_the_parameters_that_they_lead_to(bert: Path) -> None:
    rows = [{"text": "chest pain", "label": "a"}, {"text": "rash", "label": "b"}]
    study = cl.Study(model=bert, task={"max_length": 16}, data={"east": rows * 3}, test=rows)
    (plan,) = study.plan().sites
    assert (plan["sites"], plan["public_records"]) == (1, 1200)
    assert plan["parameters"] > 0


def test_there_is_none_without_privacy() -> None:
    with pytest.raises(UsageError, match="nothing to plan without privacy"):
        cl.Study(privacy=cl.Privacy(enabled=False)).plan()


def test_budgets_that_cover_no_round_are_refused_before_a_ledger_keeps_them(tmp_path: Path) -> None:
    study = cl.Study.of(small_recipe(tmp_path / "study", "privacy.site_budgets=[0.01, 0.01]"))
    for refused in (study.plan, lambda: cl.simulate(study, out=tmp_path / "run")):
        with pytest.raises(BudgetError, match="no site's budget covers one round"):
            refused()
    assert not (tmp_path / "run").exists()
