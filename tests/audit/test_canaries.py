"""One training run with canaries: a sound path passes, broken ones do not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cloister.audit.canaries import CanaryRun, audit_run
from cloister.audit.lower_bounds import Finding, epsilon_bound, judge
from cloister.audit.membership_inference import _reached, attack_adapters
from cloister.audit.one_run import guess, one_run_bound, refutes
from cloister.data.synthetic_records import made_up_records
from cloister.errors import UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy import mechanism
from cloister.privacy.noise import add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.config import TaskConfig
from cloister.training.config import TrainingConfig
from cloister.training.units import UnitExamples, unit_examples
from cloister.training.workspace import Workspace, open_workspace
from tests.support.entropy import seeded
from tests.support.ledgers import small_plan

CONFIG = TrainingConfig(
    expected_batch_size=10, mode="local-steps", local_steps=2, physical_batch_tokens=64
)
Site = tuple[Workspace, tuple[UnitExamples, ...]]


def plan(sigma: float = 0.8) -> Plan:
    """Eight steps of full batches: ε = 16.8 at δ = 1e-5."""
    return dataclasses.replace(
        small_plan(sigma), public_records=10, local_steps=2, num_rounds=4, max_update_norm=50.0
    )


@pytest.fixture(scope="module")
def site(bert: Path) -> Site:
    """Adapters of rank 16 on queries, keys and values: 3,000 coordinates for canaries."""
    modules = ("query", "key", "value")
    lora = LoraConfig(train="both", top_layers=0, r=16, target_modules=modules)
    task = TaskConfig(kind="sequence-classification", max_length=32)
    workspace = open_workspace(ModelConfig(base=str(bert)), lora, task, ("a", "b", "c"), 0)
    records = made_up_records("text", workspace.task.labels, 6, 2)
    return workspace, unit_examples(records, workspace.task.encode, Unit.PERSON, 2)


def attacked(site: Site, claimed: Plan, seed: int = 0) -> CanaryRun:
    """With draws that come again: by luck an attack accuses a sound run, once in a thousand."""
    return audit_run(*site, claimed, CONFIG, lambda: seeded(seed), seeded(100 + seed))


def test_a_sound_run_is_not_refuted(site: Site) -> None:
    run, event = attacked(site, plan()), plan().event(8)
    guesses = guess(run.scores, run.is_in)
    assert guesses.canaries > 800
    assert not refutes(guesses, event)
    assert 0.5 < one_run_bound(guesses, event, 1e-5) < plan().epsilon_after(4)


def alone(site: Site, claimed: Plan, seed: int = 0) -> Finding:
    run = attacked((site[0], ()), claimed, seed)
    return judge(run.scores[~run.is_in], run.scores[run.is_in], claimed.event(8))


def test_a_sound_run_of_canaries_alone_is_not_refuted(site: Site) -> None:
    findings = [alone(site, plan(2.0), seed) for seed in range(3)]
    assert not any(finding.refuted for finding in findings)
    bounds = [epsilon_bound(finding, plan(2.0).event(8), 1e-5) for finding in findings]
    assert 1.0 < max(bounds) < plan(2.0).epsilon_after(4)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5])
def test_too_little_noise_is_refuted(
    site: Site, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "add_noise", lambda c, s, e: add_noise(c, s * factor, e))
    assert alone(site, plan(2.0)).refuted


def test_more_sampling_than_claimed_is_refuted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = mechanism.poisson_sample
    monkeypatch.setattr(
        mechanism, "poisson_sample", lambda count, rate, entropy: sample(count, 4 * rate, entropy)
    )
    rare = dataclasses.replace(plan(0.8), public_records=40)  # claims 1/4, draws all
    assert alone(site, rare).refuted


def test_without_privacy_there_is_nothing_to_audit(site: Site) -> None:
    with pytest.raises(UsageError, match="nothing to audit"):
        audit_run(*site, dataclasses.replace(plan(), noise_multiplier=0.0), CONFIG)


def test_membership_is_told_where_nothing_is_hidden_and_not_where_it_is(site: Site) -> None:
    workspace, units = site
    loud = dataclasses.replace(plan(100.0), max_update_norm=1.0)
    hidden = attack_adapters(workspace, units, loud, CONFIG, adapters=4)
    assert hidden.guesses == 4 * len(units)
    assert 0.0 <= hidden.auc <= 1.0


def test_the_area_and_the_rate_of_an_attack() -> None:
    rng = np.random.default_rng(0)
    is_in = rng.random(4000) < 0.5
    blind = _reached(rng.normal(size=4000), is_in)
    assert abs(blind.auc - 0.5) < 0.05
    assert abs(blind.true_positives - 0.1) < 0.04
    sees = _reached(is_in + 0.01 * rng.random(4000), is_in)
    assert sees.auc == 1.0
    assert sees.true_positives == 1.0
