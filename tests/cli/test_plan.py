"""`cloister plan` prints its figures in words, and refuses what cannot be planned."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from tests.support.studies import small_assignments


def small(tmp_path: Path, *assignments: str) -> list[str]:
    values = (*small_assignments(tmp_path / "study"), *assignments)
    return [a for value in values for a in ("--set", value)]


def test_a_plan_says_what_is_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *small(tmp_path, "privacy.epsilon=3.0")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "2 sites of 40 declared records",
        "for one record of a site, added or removed (PLD)",
        "promised for the whole plan",
        "spent after round, an indication and no promise:",
        "ε for a person, by how many records they have at the site",
        "noised parameters",
        "Promised",
        "a test that wrongly accuses 1% of the records",
        "that were not finds at most",
        "Not promised",
        "warning: one step's noise",
    ):
        assert words in told, words


def test_a_plan_as_json_follows_from_declared_constants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small(tmp_path, "privacy.epsilon=3.0")
    assert run(["plan", *options, "--json"]) == 0
    (one,) = (first := json.loads(capsys.readouterr().out))["plans"]
    assert 2.9 < one["epsilon"] <= 3.0
    assert list(one["epsilon_over_rounds"].values())[-1] == one["epsilon"]
    assert one["epsilon_of_records"]["2"] > one["epsilon"]
    assert one["steps"] == 4
    assert 0.01 < one["true_positive_rate"]["0.01"] < 0.2
    with (tmp_path / "study" / "train.jsonl").open("a") as file:
        file.write('{"text": "no fever", "label": "cardiology", "site": "east"}\n')
    assert run(["plan", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_plan_for_persons_prices_no_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = ["privacy.unit=person", "data.person=person", "data.partition=person"]
    assert run(["plan", *small(tmp_path, *unit), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["plans"]
    assert one["unit"] == "person"
    assert "epsilon_of_records" not in one


def test_a_plan_without_data_says_what_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small(tmp_path, "data.train='none.jsonl'", "privacy.epsilon=3.0")
    assert run(["plan", *options, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["plans"]
    assert "parameters" not in one
    assert 2.9 < one["epsilon"] <= 3.0


def test_a_plan_without_privacy_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *small(tmp_path, "privacy.enabled=false")]) == 2
    assert "nothing to plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["privacy.evaluation_rounds=[1]"], 2, "data.held_out_share: missing"),
        (['data.partition="person"', "task.labels=['a','b']"], 2, "data.person: name the column"),
        (["task.kind=token-classification", "data.partition=dirichlet"], 2, "skews labels"),
        (["lora.use_dora=true", "lora.train=both"], 4, "lora.use_dora: true given with privacy"),
        (["privacy.site_budgets=[0.01,0.01,0.01,0.01]"], 5, "no site's budget covers one round"),
    ],
)
def test_a_plan_and_a_run_refuse_the_same_recipes_in_the_same_words(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    code: int,
    said: str,
) -> None:
    given = [word for one in settings for word in ("--set", one)]
    told = []
    for command in (["plan"], ["simulate", "--dry-run"]):
        assert run([*command, *given]) == code
        told.append(capsys.readouterr().err.splitlines()[-1])
    assert told[0] == told[1]
    assert said in told[0]


def test_a_plan_in_which_one_budget_covers_a_round_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = ["privacy.noise_multiplier=2.0", "privacy.site_budgets=[0.01,9.0]"]
    assert run(["plan", *small(tmp_path, *budgets), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plans"]


def test_a_recipe_without_data_is_planned_and_told_what_a_run_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be one for deployed sites, which declare their own held-out share."""
    recipe = tmp_path / "study.toml"
    recipe.write_text("[privacy]\nevaluation_rounds = [10]\n")
    assert run(["plan", str(recipe), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["warnings"]
    assert any("simulate would refuse it: data.held_out_share: missing" in one for one in notes)
    assert run(["simulate", str(recipe), "--dry-run"]) == 2
    recipe.write_text("[privacy]\nsite_budgets = [0.01, 0.01, 0.01, 0.01]\n")
    capsys.readouterr()
    assert run(["plan", str(recipe), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["warnings"]
    assert any("simulate would refuse it: no site's budget covers one round" in n for n in notes)


VOTES = """
[task]
labels = ["a", "b"]
[data]
sites = 3
public_records = 400
[privacy]
epsilon = 4.0
[votes]
public = "public.jsonl"
candidates = 60
rounds = 4
generator = "generator"
"""


@pytest.mark.parametrize("noise", ["site", "shared"])
def test_a_study_of_votes_is_planned_with_the_noise_of_its_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], noise: str
) -> None:
    """Neither the public file, the records nor a base are read: none of them is there."""
    file = tmp_path / "votes.toml"
    sharing = f'epsilon = 4.0\nnoise = "{noise}"'
    file.write_text(VOTES.replace("epsilon = 4.0", sharing).replace("[data]", '[data]\ntrain="x"'))
    assert run(["plan", str(file), "--json"]) == 0
    (one,) = (found := json.loads(capsys.readouterr().out))["plans"]
    votes, sigma = one["votes"], one["noise_multiplier"]
    honest = 3 - one["sharing"]["colluding"] if noise == "shared" else 1
    assert votes["noise_at_site"] == pytest.approx(sigma / honest**0.5, rel=1e-3)
    assert votes["noise_over_sites"] == pytest.approx(votes["noise_at_site"] * 3**0.5)
    assert votes["mean_count"] == 20
    assert votes["most_candidates"] == int(1200 / votes["noise_over_sites"])
    assert 3.9 < one["epsilon"] <= 4.0
    assert found["warnings"] == []
    assert run(["plan", str(file)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 sites of 400 declared records: ε = " in told
    assert "every record votes for one of 60 candidates in each of 4 rounds" in told
    assert "over all sites a candidate gets 20 votes on average, with noise of" in told
    for words in ("clip bound", "batch", "gradient"):
        assert words not in told, words


def test_a_study_of_votes_without_data_says_whose_sizes_it_took_and_takes_no_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "votes.toml"
    file.write_text(VOTES)
    assert run(["plan", str(file)]) == 0
    assert "Connected sites declare their own" in capsys.readouterr().out
    assert run(["plan", str(file), "--set", "privacy.epsilon=3"]) == 2
    assert "--set: given with a study of votes" in capsys.readouterr().err
    file.write_text(VOTES.replace("sites = 3", "sites = 1"))
    assert run(["plan", str(file)]) == 0
    assert capsys.readouterr().out.startswith("1 site of 400 declared records: ε = ")
