"""A round of votes is charged as a kind of its own, and both verifiers know it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import LedgerError, RefusedError, RoundSpentError
from cloister.evidence.bundle import Bundle, read_bundle, write_bundle
from cloister.evidence.certificate_alone import check_alone, to_bytes
from cloister.ledger.budget import Budget
from cloister.ledger.certificate import Evidence, check
from cloister.ledger.charge import Released
from cloister.ledger.history import request_of
from cloister.ledger.ledger import Ledger
from cloister.ledger.replay import charged_rounds, forecast
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import public_hex
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Unit
from tests.support.evidence import (
    ADAPTER,
    certified,
    certified_as,
    chain,
    key_of,
    received_of,
    rechained,
    resigned,
)
from tests.support.ledgers import charge, new_ledger, small_plan, voting_plan
from tests.tools.test_independent_verifier import verdicts

VOTE = ReleaseKind.VOTE
PLAN = voting_plan()
STUDY: list[tuple[Any, ...]] = [
    ("study", 1, PLAN, True, VOTE),
    ("study", 3, PLAN, False, VOTE),
]
KEYS = {"site-0": public_hex(key_of(0))}
ABOUT = {"site": "site-0", "study": "study", "key": public_hex(key_of(0))}


def vote(ledger: Ledger, number: int, plan: Plan = PLAN) -> Reservation | Released:
    return ledger.reserve(charge(number, plan, kind=VOTE))


def voted(ledger: Ledger, number: int, plan: Plan = PLAN) -> Released:
    granted = vote(ledger, number, plan)
    assert isinstance(granted, Reservation)
    return granted.release(f"votes {number}".encode())


def test_rounds_of_votes_cost_their_list_and_the_same_bytes_are_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    exact = Budget(epsilon=PLAN.epsilon_after(3), delta=2e-5)
    ledger = Ledger.create(path, exact, Unit.RECORD)
    first = voted(ledger, 1)
    history = verify(LedgerFile(path).entries(), "it").history
    found = forecast(history)
    assert found is not None
    assert found.rounds is not None
    assert found.rounds >= 2
    for number in (2, 3):
        voted(ledger, number)
    head = ledger.head
    assert vote(Ledger(path), 1) == first
    assert ledger.head == head
    entries = LedgerFile(path).entries()
    kinds = [e.fields["release_kind"] for e in entries if e.fields["kind"] == "reserve"]
    assert kinds == ["vote"] * 3
    verdict = verify(entries, "it")
    assert verdict.promise.epsilon == PLAN.epsilon_after(3) == verdict.spent.epsilon
    assert (verdict.steps, verdict.charged) == (3, "3 votes")
    labels = [charged.label for charged in charged_rounds(entries, verdict.history)]
    assert labels == ["1 vote", "2 vote", "3 vote"]
    with pytest.raises(RefusedError, match="answered once"):
        ledger.reserve(replace(charge(1, PLAN, kind=VOTE), request="other candidates"))


def test_a_kill_after_the_charge_leaves_the_round_spent(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    vote(ledger, 1)
    with pytest.raises(RoundSpentError, match="stays spent"):
        vote(Ledger(tmp_path / "site.ledger"), 1)


def test_what_the_plan_does_not_list_is_refused_and_not_charged(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    head = ledger.head
    for asked, why in (
        (charge(4, PLAN, kind=VOTE), "no vote in round 4"),
        (charge(1, small_plan(), kind=VOTE), "vote was asked, which the plan does not list"),
        (charge(1, PLAN), "training was asked, which the plan does not list"),
        (charge(1, PLAN, kind=ReleaseKind.EVALUATION), "evaluation was asked"),
    ):
        with pytest.raises(RefusedError, match=why):
            ledger.reserve(asked)
    assert ledger.head == head


def test_a_vote_is_no_step_of_training_with_the_same_event() -> None:
    alike = replace(PLAN, votes=None, message=())
    assert request_of(PLAN).event == request_of(alike).event
    assert request_of(PLAN).kind != request_of(alike).kind


# --- certificates and verifiers ---------------------------------------------------------------


def both(path: Path, evidence: Evidence, *received: Any) -> tuple[bool, bool]:
    """Whether each verifier takes a bundle of one site."""
    write_bundle(path / "bundle.zip", Bundle({"site-0": evidence}, ADAPTER, received))
    return verdicts(path / "bundle.zip", KEYS)


def test_the_certificate_states_the_votes_and_both_verifiers_take_it(tmp_path: Path) -> None:
    evidence = certified(chain(key_of(0), STUDY), 0)
    fields = evidence.fields
    assert (fields["version"], fields["rounds"], fields["released"]) == (6, 0, 0)
    assert fields["votes"] == [{"round": 1, "released": True}, {"round": 3, "released": False}]
    assert fields["evaluations"] == []
    assert fields["promise"]["basis"] == "whole-plan"
    assert check(evidence, public_hex(key_of(0))).steps == 2
    update = received_of(certified(chain(key_of(0), [("study", 1, small_plan(), True)]), 0), 1)
    entry = next(one for one in evidence.ledger if one.fields["kind"] == "release")
    sent = replace(update, sha256=entry.fields["sha256"], head=entry.hash, kind=VOTE)
    assert both(tmp_path, evidence, sent) == (True, True)
    assert list(read_bundle(tmp_path / "bundle.zip").received) == [sent]
    assert both(tmp_path, evidence, replace(sent, kind=ReleaseKind.TRAINING)) == (False, False)
    check_alone(to_bytes(evidence.certificate), most_steps=3, **ABOUT)
    with pytest.raises(LedgerError, match="more than the 2 steps"):
        check_alone(to_bytes(evidence.certificate), most_steps=2, **ABOUT)


def test_a_ledger_may_have_training_and_votes_of_two_studies(tmp_path: Path) -> None:
    mixed = [("study", 1, small_plan(), True), ("votes", 1, PLAN, True, VOTE)]
    evidence = certified(chain(key_of(0), mixed), 0)
    assert (evidence.fields["version"], evidence.fields["votes"]) == (6, [])
    assert evidence.fields["promise"]["basis"] == "lifetime-budget"
    assert both(tmp_path, evidence) == (True, True)


@pytest.mark.parametrize(
    "change",
    [
        {"votes": []},
        {"votes": [{"round": 1, "released": True}]},
        {"votes": [{"round": 1, "released": True}, {"round": 3, "released": True}]},
        {"rounds": 2, "votes": []},
        {"evaluations": [{"round": 1, "released": True}]},
    ],
)
def test_each_check_refutes_a_certificate_that_hides_or_invents(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    forged = resigned(certified(chain(key_of(0), STUDY), 0), key_of(0), **change)
    assert both(tmp_path, forged) == (False, False)
    if len(change.get("votes", [])) < 2:  # else only its ledger shows what was released
        with pytest.raises(LedgerError, match="contradicts itself"):
            check_alone(to_bytes(forged.certificate), most_steps=3, **ABOUT)


def test_both_refute_an_older_form_that_has_no_place_for_votes(tmp_path: Path) -> None:
    assert both(tmp_path, certified_as(5, chain(key_of(0), STUDY), 0)) == (False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("release_kind", "evaluation"),
        ("release_kind", None),
        ("round", 4),
        ("round", 0),
        ("planned_steps", 2),
        ("event", {"noise_multiplier": 8.0, "sample_rate": 1.0, "steps": 1, "is_private": True}),
        ("event", {"noise_multiplier": 4.0, "sample_rate": 1.0, "steps": 0, "is_private": True}),
    ],
)
def test_both_refute_a_vote_that_is_not_the_plan_s(
    tmp_path: Path, name: str, value: object
) -> None:
    def forge(_: int, fields: dict[str, Any]) -> None:
        if fields.get("round") == 3:
            fields[name] = value
            if value is None:
                del fields[name]

    entries = rechained(chain(key_of(0), STUDY), key_of(0), forge)
    sound = certified(chain(key_of(0), STUDY), 0)
    head = {"seq": len(entries) - 1, "hash": entries[-1].hash}
    forged = Evidence(resigned(sound, key_of(0), ledger=head).certificate, tuple(entries))
    assert both(tmp_path, forged) == (False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("votes", 1),
        ("votes", True),
        ("expected_batch_size", 50),
        ("local_steps", 2),
        ("max_grad_norm", 0.5),
        ("max_update_norm", 1.0),
    ],
)
def test_a_plan_whose_votes_are_not_of_norm_one_is_none(name: str, value: object) -> None:
    with pytest.raises(RefusedError):
        replace(PLAN, **{name: value})
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_terms({**PLAN.terms(), name: value})
    assert Plan.from_terms(PLAN.terms()) == PLAN
