"""A simulated study with private evaluations, from recipe to bundle."""

import json
import math
import shutil
from pathlib import Path

import pytest

from cloister.api.study_plan import plan_study
from cloister.errors import BadFileError, LedgerError
from cloister.ledger.storage import LedgerFile
from cloister.server.former_run import read_former
from cloister.server.private_evaluation import PrivateEvaluation
from cloister.server.run_directory import RunDirectory
from cloister.simulation.certificates import certify_run
from cloister.simulation.run import simulate
from cloister.simulation.twin import plain_twin
from tests.client.test_evaluating import SETTINGS
from tests.support.studies import small_recipe
from tests.tools.test_independent_verifier import verdicts


class Stopped(BaseException):
    """Ends the coordinator as a kill would."""


def test_estimates_appear_beside_the_rounds_and_the_bundle_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["federation.num_rounds=2", "privacy.evaluation_rounds=[1,2]"]
    recipe = small_recipe(tmp_path / "study", *SETTINGS, *few)
    run = RunDirectory.create(tmp_path / "run", recipe)
    real = PrivateEvaluation.ask

    def stopped(self: PrivateEvaluation, *rest: object) -> object:
        if any(getattr(one, "round", None) == 2 for one in rest):
            raise Stopped
        return real(self, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:  # after round 2 was saved, and before its evaluation
        patch.setattr(PrivateEvaluation, "ask", stopped)
        with pytest.raises(Stopped):
            simulate(recipe, run)
    assert [row["round"] for row in run.evaluations()] == [1]
    LedgerFile(run.ledger("east")).snapshot(tmp_path / "before the last evaluation")
    result = simulate(recipe, RunDirectory.reopen(tmp_path / "run"))
    rows = run.evaluations()
    assert [row["round"] for row in rows] == [1, 2]
    for row in rows:
        assert row["is_private_evaluation"] is True
        assert row["sites"] == ["east", "west"]
        found = row["scores"]["accuracy"]
        low, high = found["population"]
        assert 0 <= low <= found["held_out"][0] <= found["held_out"][1] <= high <= 1
        assert set(row["classes"]) == {"cardiology", "dermatology", "orthopaedics"}
        assert len(row["noised_sums"]["confusion"]) == 3
    # Also the round whose evaluation the kill cut off has its line, with what was received.
    assert [sorted(row["received"]) for row in run.metrics()] == [["east", "west"]] * 2
    assert [row.get("private_evaluation") for row in run.scored()][-2:] == rows
    document = json.loads(run.result_file.read_text())
    assert document["private_evaluations"] == list(result.private_evaluations) == rows
    # Two rounds of one step each; an evaluation is no step.
    assert {(site["steps"], site["evaluations"]) for site in document["sites"]} == {(2, 2)}
    certified = certify_run(run)
    keys = json.loads(certified.keys.read_text())
    assert verdicts(certified.bundle, keys) == (True, True)
    # A ledger that is cut back to the last round lacks its evaluation, which is noticed.
    shutil.copy(tmp_path / "before the last evaluation", run.ledger("east"))
    with pytest.raises(LedgerError, match="truncated, rolled back or replaced"):
        certify_run(run)
    with pytest.raises(BadFileError, match="truncated, rolled back or replaced"):
        read_former(run.path)
    with pytest.raises(LedgerError, match="truncated, rolled back or replaced"):
        simulate(recipe, RunDirectory.reopen(tmp_path / "run"))


def test_the_plan_names_the_evaluations_and_their_cost(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", *SETTINGS)
    plan = plan_study(recipe)
    (facts,) = plan.sites
    assert facts["evaluations"]["rounds"] == (2, 4)
    assert 0 < facts["evaluations"]["epsilon_alone"] < facts["epsilon"] <= 8.0
    assert "private evaluations on held-out units after round 2, 4" in str(plan)
    assert facts["epsilon"] < facts["epsilon_of_records"][2] < facts["epsilon_of_records"][4]
    assert not any(math.isnan(value) for value in facts["epsilon_over_rounds"].values())
    assert plain_twin(recipe).privacy.evaluations is None
    assert recipe.most_steps == 4 + 2
