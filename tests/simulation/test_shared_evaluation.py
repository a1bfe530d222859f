"""A study with shared noise whose adapter is evaluated privately: only sums leave."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister.adapter.wire import encode
from cloister.client.policy_file import SitePolicy
from cloister.client.round import answer
from cloister.errors import RefusedError
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.accounting import epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.shared_noise import SHARE_LEFT
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe import Recipe
from cloister.secagg.query import Query
from cloister.server import private_evaluation
from cloister.server.run_directory import RunDirectory
from cloister.simulation import study
from cloister.simulation.certificates import certify_run
from cloister.simulation.run import simulate
from cloister.simulation.study import prepare, workspace_of
from tests.client.test_optimizer_memory import opened
from tests.support.studies import small_recipe
from tests.tools.test_independent_verifier import verdicts

SITES = 3
# A lifetime budget that tells the first site from the others.
FIRST = 99.0


def recipe_of(folder: Path, *more: str) -> Recipe:
    return small_recipe(
        folder,
        f"data.sites={SITES}",
        "data.partition=iid",
        "data.public_records=80",
        "data.held_out_share=0.4",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "training.expected_batch_size=5",
        "privacy.noise=shared",
        "privacy.evaluation_rounds=[1,2]",
        "privacy.evaluation_noise_multiplier=2.0",
        *more,
    )


def test_estimates_come_from_the_sum_alone_and_the_bundle_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path / "study")
    run = RunDirectory.create(tmp_path / "run", recipe)
    sums: list[tuple[np.ndarray, int]] = []
    real = private_evaluation.PrivateEvaluation.of_sum

    def noted(
        self: private_evaluation.PrivateEvaluation, total: np.ndarray, sites: tuple[str, ...]
    ) -> object:
        sums.append((total, len(sites)))
        return real(self, total, sites)

    monkeypatch.setattr(private_evaluation.PrivateEvaluation, "of_sum", noted)
    simulate(recipe, run)
    rows = run.evaluations()
    assert [(row["round"], row["sites"]) for row in rows] == [
        (number, ["site-0", "site-1", "site-2"]) for number in (1, 2)
    ]
    assert [sites for _, sites in sums] == [SITES, SITES]
    plan = prepare(recipe).plans["site-0"]
    assert plan.sharing is not None
    noise = plan.shared_evaluation_noise(42)
    for row, (total, _) in zip(rows, sums, strict=True):
        # Right and wrong units: the sum of both lies within six deviations of the truth.
        held_out = sum(map(len, prepare(recipe).held_out.values()))
        scale = 1 / math.sqrt(1 + 3 * 0.5**2)
        deviation = noise.share * noise.grid * math.sqrt(2 * SITES) / scale
        assert abs(total[:2].sum() * noise.grid / scale - held_out) < 6 * deviation
        low, high = row["scores"]["accuracy"]["population"]
        assert 0 <= low < high <= 1
    certified = certify_run(run)
    keys = json.loads(certified.keys.read_text())
    assert verdicts(certified.bundle, keys) == (True, True)
    for ledger in run.ledgers().values():
        verdict = verify(LedgerFile(ledger).entries(), str(ledger))
        assert len(verdict.history.evaluations) == 2
        assert verdict.promise.epsilon == pytest.approx(plan.epsilon_after(2))
        # Against all others together each release has one share of its own noise.
        left = math.sqrt(SHARE_LEFT / plan.sharing.honest)
        seen = [
            GaussianEvent(
                noise_multiplier=event.noise_multiplier * left,
                sample_rate=event.sample_rate,
                steps=event.steps,
            )
            for event in plan.releases
        ]
        assert verdict.promise_alone is not None
        assert verdict.promise_alone.epsilon == pytest.approx(epsilon(seen, plan.delta))


def test_no_statistics_leave_in_clear_or_at_another_moment(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "study", "federation.num_rounds=3")
    site, workspace = opened(recipe, tmp_path / "run"), workspace_of(prepare(recipe))
    adapter = encode(workspace.whole)
    with pytest.raises(RefusedError, match="only under a mask"):
        answer(site, workspace, RoundRequest(site.study, 1, adapter, Step.EVALUATE), lambda: None)
    query = Query(epoch=1, members={}, evaluates=True)
    asked = RoundRequest(site.study, 3, adapter, Step.MASK, query.to_bytes())
    with pytest.raises(RefusedError, match="which the plan does not list"):
        answer(site, workspace, asked, lambda: None)
    assert site.ledger.steps == 0
    assert not site.ledger.has_charged(site.study, 1, ReleaseKind.EVALUATION)


def test_a_site_that_leaves_before_the_evaluations_is_in_the_sums_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own plan lists no evaluation, and its masks are still numbered as the others' are."""
    real, made = study.simulated_policy, list[SitePolicy]()

    def one_leaves(*of: Any) -> SitePolicy:
        policy = real(*of)
        if of[2].epsilon == FIRST:
            policy = replace(policy, accept=replace(policy.accept, max_rounds=1))
        made.append(policy)
        return policy

    monkeypatch.setattr(study, "simulated_policy", one_leaves)
    recipe = recipe_of(
        tmp_path / "study",
        "data.sites=4",
        "privacy.missing_sites=1",
        "privacy.evaluation_rounds=[2]",
        f"privacy.site_budgets=[{FIRST},100.0,100.0,100.0]",
    )
    run = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, run)
    assert any(policy.accept.max_rounds == 1 for policy in made)
    first, second = (set(row["received"]) for row in run.metrics())
    assert first - second == {"site-0"}
    assert all(row["update_norm"] > 0 for row in run.metrics()), "a sum was not unmasked"
    assert [row["sites"] for row in run.evaluations()] == [["site-1", "site-2", "site-3"]]
