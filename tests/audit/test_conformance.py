"""The auditor's first level: sound paths pass, each broken one is refuted by the check for it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import tests.support.mutants.answers
import tests.support.mutants.bands
import tests.support.mutants.clipping
import tests.support.mutants.evaluations
import tests.support.mutants.noise
import tests.support.mutants.path
import tests.support.mutants.sampler
import tests.support.mutants.shared_evaluations
import tests.support.mutants.shared_updates
import tests.support.mutants.shared_votes
import tests.support.mutants.units
import tests.support.mutants.votes  # noqa: F401
from cloister.audit.conformance import conformance, conformance_parts
from cloister.audit.statistics import LEVEL, MOST_CHECKS
from cloister.data.synthetic_records import made_up_records
from cloister.errors import UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.bare_text import score_ends
from cloister.tasks.build import record_kind
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.training.config import TrainingConfig
from cloister.training.proof import proven
from cloister.training.units import UnitExamples, unit_examples
from cloister.training.workspace import Workspace, open_workspace
from tests.support import examples
from tests.support.ledgers import small_plan
from tests.support.mutants.registry import MUTANTS, broken, of_part
from tests.support.quick_audit import quick_audit
from tests.support.tables import hold

Audited = tuple[Workspace, tuple[UnitExamples, ...]]
CONFIG = TrainingConfig(
    expected_batch_size=10, mode="local-steps", local_steps=2, physical_batch_tokens=64
)


def plan() -> Plan:
    return dataclasses.replace(small_plan(), local_steps=2, max_update_norm=50.0)


def audited(base: Path, kind: TaskKind, unit: Unit = Unit.PERSON) -> Audited:
    labels = () if kind in ("causal-lm", "scoring", "recommendation") else ("a", "b", "c")
    lora = LoraConfig(train="both", top_layers=0)
    options: dict[str, Any] = {
        "scoring": {"score_range": (0.0, 5.0), "score_step": 1.0},
        "recommendation": {"items": "synthetic:shops"},
        "retrieval": {"passages": (("a", "chest pain"), ("b", "itchy rash"))},
    }.get(kind, {})
    task = TaskConfig(kind=kind, max_length=32, **options)
    workspace = open_workspace(ModelConfig(base=str(base)), lora, task, labels, 0)
    ends = score_ends(workspace.task)
    records = made_up_records(record_kind(kind), workspace.task.labels, 6, 3, ends)
    return workspace, unit_examples(records, workspace.task.encode, unit, 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_audit(monkeypatch)


# Parts that look at no base: `make test` runs them once, in the last test here.
WITHOUT_BASE = () if examples.ALL else ("noise", "sampler")


def refuted(site: Audited) -> set[str]:
    parts = conformance_parts(*site, plan(), CONFIG)
    checks = [check for name, part in parts.items() if name not in WITHOUT_BASE for check in part()]
    return {check.name for check in checks if check.refuted}


# Every base and every unit is in the quick ones (labels of texts, with BERT, in the last tests
# here). What other tasks add is a loss: the contract of tasks and `training/test_isolation.py` try
# each.
QUICK = {
    ("gpt2", "token-classification", Unit.RECORD),
    ("llama", "causal-lm", Unit.PERSON),
}


@pytest.mark.parametrize(
    ("base", "kind", "unit"),
    [
        pytest.param(
            base, kind, unit, marks=[] if (base, kind, unit) in QUICK else pytest.mark.nightly
        )
        for base, kind in (
            ("bert", "sequence-classification"),
            ("bert", "token-classification"),
            ("bert", "multi-label-classification"),
            ("bert", "scoring"),
            ("bert", "text-pairs"),
            ("gpt2", "causal-lm"),
            ("bert", "retrieval"),
            ("bert", "recommendation"),
            *((base, kind) for base, kind, _ in sorted(QUICK)),
        )
        for unit in Unit
    ],
)
def test_a_sound_path_is_not_refuted(
    base: str, kind: TaskKind, unit: Unit, request: pytest.FixtureRequest
) -> None:
    assert refuted(audited(request.getfixturevalue(base), kind, unit)) == set()


def test_without_privacy_there_is_nothing_to_audit(site: Audited) -> None:
    with pytest.raises(UsageError, match="nothing to audit"):
        conformance(*site, dataclasses.replace(plan(), noise_multiplier=0.0), CONFIG)


# --- the mutation matrix ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(bert: Path) -> Audited:
    """Proven before anything is broken, as a site's proof is older than the fault in it."""
    found = audited(bert, "sequence-classification")
    proven(found[0], plan(), CONFIG)
    return found


# One for each part of the audit in `make test`: what finds it runs, and is looked at. That every
# check runs is below; what each law of noise and coins sees is in `test_statistics.py`.
PATH = ("empty site", "few records", "real batches", "updates")
ALL = of_part("clipping", "noise", "sampler", *PATH)
FIRST = {MUTANTS[name].part: name for name in reversed(ALL)}.values()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FIRST else pytest.mark.nightly) for name in ALL],
)
def test_each_mutant_is_refuted_by_its_check(
    site: Audited, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_entropy = broken(name, monkeypatch)
    # Of six units at a rate of 0.1 every batch of a round is often empty, and nothing is then wrong
    # in a path that adds gradients without noise: at 0.5 that happens once in 10^5.
    fuller = dataclasses.replace(plan(), public_records=20)
    tried = fuller if MUTANTS[name].part in PATH else plan()
    part = conformance_parts(*site, tried, CONFIG, make_entropy)[MUTANTS[name].part]
    assert MUTANTS[name].check in {check.name for check in part() if check.refuted}


def test_the_page_for_officers_lists_every_mutant() -> None:
    # By file: which of them was imported first depends on what else a worker collected.
    listed = sorted(MUTANTS.items(), key=lambda row: row[1].patch.__module__)
    rows = {name: mutant.check for name, mutant in listed}
    rows["one site's noise dropped"] = "noise at each site"  # tests/audit/test_site_noise.py
    rows["one site's share of shared noise dropped"] = "noise of the sum"
    rows |= {"shares too small for the fewest honest sites": "share"}  # test_shared_conformance.py
    hold("mutants", "| broken mechanism | refuted by |", rows)


# --- how often a sound mechanism is refuted ---------------------------------------------------


def test_all_checks_together_refute_a_sound_mechanism_once_in_100_000_runs(site: Audited) -> None:
    checks = conformance(*site, plan(), CONFIG)
    statistical = [check for check in checks if not check.is_exact]
    # Beside them: noise at each site, noise of different sites, noise of answers.
    assert len(statistical) + 3 <= MOST_CHECKS
    assert MOST_CHECKS * LEVEL <= 1e-5 * (1 + 1e-9)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {MUTANTS[name].check for name in ALL} <= set(names)
    assert [check for check in checks if check.refuted] == []
