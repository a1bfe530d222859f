"""A private evaluation is charged as a kind of its own, at its moment, and both verifiers know."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import BudgetError, LedgerError, RefusedError, RoundSpentError
from cloister.evidence.bundle import Bundle, read_bundle, write_bundle
from cloister.evidence.certificate_alone import check_alone, to_bytes
from cloister.ledger.budget import Budget
from cloister.ledger.certificate import Evidence, check
from cloister.ledger.chain import Entry
from cloister.ledger.charge import Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.replay import charged_rounds, forecast
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import public_hex
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.accounting import COARSE, epsilon
from cloister.privacy.evaluations import Evaluations
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
from tests.support.ledgers import charge, evaluated_plan, new_ledger, run_round, small_plan
from tests.tools.test_independent_verifier import independent, verdicts

EVALUATION = ReleaseKind.EVALUATION
PLAN = evaluated_plan()
# An evaluation whose event is that of a training round: one step at rate 1 and the same noise.
ALIKE = replace(
    small_plan(),
    expected_batch_size=100,
    local_steps=1,
    evaluations=Evaluations(rounds=(2, 4), noise_multiplier=1.0),
)
STUDY: list[tuple[Any, ...]] = [
    ("study", 1, PLAN, True),
    ("study", 2, PLAN, True),
    ("study", 2, PLAN, True, EVALUATION),
    ("study", 3, PLAN, False),
    ("study", 4, PLAN, True),
    ("study", 4, PLAN, False, EVALUATION),
]


def evaluate(ledger: Ledger, number: int, plan: Plan = PLAN) -> Reservation | Released:
    return ledger.reserve(charge(number, plan, kind=EVALUATION))


def evaluated(ledger: Ledger, number: int, plan: Plan = PLAN) -> Released:
    granted = evaluate(ledger, number, plan)
    assert isinstance(granted, Reservation)
    return granted.release(f"scores {number}".encode())


@pytest.mark.parametrize("plan", [PLAN, ALIKE])
def test_a_study_is_charged_as_its_list_and_within_the_list_s_epsilon(
    tmp_path: Path, plan: Plan
) -> None:
    path = tmp_path / "site.ledger"
    exact = Budget(epsilon=plan.epsilon_after(4), delta=2e-5)
    ledger = Ledger.create(path, exact, Unit.RECORD)
    for number in (1, 2, 3, 4):
        run_round(ledger, number, plan)
        if number in (2, 4):
            evaluated(ledger, number, plan)
    entries = LedgerFile(path).entries()
    kinds = [e.fields.get("release_kind") for e in entries if e.fields["kind"] == "reserve"]
    assert kinds == [None, None, "evaluation", None, None, "evaluation"]
    verdict = verify(entries, "it")
    assert (verdict.charges, verdict.releases) == (6, 6)
    assert verdict.steps == 4 * plan.local_steps + 2
    assert verdict.history.training_steps == ledger.training_steps == 4 * plan.local_steps
    assert ledger.evaluations == 2
    assert verdict.promise.epsilon == plan.epsilon_after(4) == verdict.spent.epsilon
    by_kind = {kind.release: steps for kind, steps in verdict.history.spent.by_kind.items()}
    assert by_kind == {ReleaseKind.TRAINING: 4 * plan.local_steps, EVALUATION: 2}
    labels = [charged.label for charged in charged_rounds(entries, verdict.history)]
    assert labels == ["1", "2", "2 evaluation", "3", "4", "4 evaluation"]


def test_asked_again_the_same_bytes_are_sent_and_nothing_more_is_charged(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    run_round(ledger, 2, PLAN)
    first = evaluated(ledger, 2)
    run_round(ledger, 3, PLAN)
    head = ledger.head
    assert evaluate(Ledger(path), 2) == first  # also later, and by another process
    assert ledger.head == head
    with pytest.raises(RefusedError, match="answered once"):
        ledger.reserve(replace(charge(2, PLAN, kind=EVALUATION), request="another adapter"))


def _after(more: int | None, delta: float) -> float:
    assert more is not None
    assert PLAN.evaluations is not None
    return epsilon([PLAN.event((2 + more) * 5), PLAN.evaluations.event(2)], delta, COARSE)


def test_a_forecast_counts_the_evaluations_that_its_rounds_bring(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    run_round(ledger, 1, PLAN)
    run_round(ledger, 2, PLAN)
    history = verify(LedgerFile(path).entries(), "it").history
    found = forecast(history)
    assert found is not None
    half, training = history.budget.delta / 2, PLAN.event(2 * PLAN.local_steps)
    evaluation = PLAN.evaluations
    assert evaluation is not None
    curve = dict(found.curve)
    assert curve[0] == epsilon([training, evaluation.event(1)], half, COARSE)  # it may come now
    more, then = found.curve[-1]
    assert more >= 2
    assert then == pytest.approx(_after(more, half))
    evaluated(ledger, 2)
    found = forecast(verify(LedgerFile(path).entries(), "it").history)
    assert found is not None
    assert found.curve[-1] == (found.rounds, pytest.approx(_after(found.rounds, half)))


def test_a_kill_after_the_charge_leaves_it_spent(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    run_round(ledger, 2, PLAN)
    evaluate(ledger, 2)
    with pytest.raises(RoundSpentError, match="stays spent"):
        evaluate(Ledger(path), 2)


def test_an_evaluation_is_charged_at_its_declared_moment_only(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    run_round(ledger, 1, PLAN)
    before = ledger.head
    for number, plan, why in (
        (1, PLAN, "no evaluation after round 1"),
        (3, PLAN, "no evaluation after round 3"),
        (2, small_plan(), "does not list"),
    ):
        with pytest.raises(RefusedError, match=why):
            evaluate(ledger, number, plan)
    assert ledger.head == before
    evaluated(ledger, 2)  # this site was left out of round 2
    with pytest.raises(RefusedError, match="round 2: the adapter after round 2 was evaluated"):
        ledger.reserve(charge(2, PLAN))
    run_round(ledger, 3, PLAN)
    evaluated(ledger, 4)
    other = new_ledger(tmp_path / "other.ledger")
    run_round(other, 3, PLAN)
    with pytest.raises(RefusedError, match="a later round was charged already"):
        evaluate(other, 2)


# --- certificates and verifiers ---------------------------------------------------------------


def both(path: Path, evidence: Evidence) -> tuple[bool, bool]:
    """Whether each verifier takes a bundle of one site."""
    write_bundle(path / "bundle.zip", Bundle({"site-0": evidence}, ADAPTER, []))
    return verdicts(path / "bundle.zip", {"site-0": public_hex(key_of(0))})


def insider(entries: list[Entry]) -> Evidence:
    """A ledger that an insider wrote, with a certificate that was signed anew for its head."""
    key = key_of(0)
    ledger = {"seq": len(entries) - 1, "hash": entries[-1].hash}
    sound = certified(chain(key, STUDY), 0)
    return Evidence(resigned(sound, key, ledger=ledger).certificate, tuple(entries))


def test_the_certificate_states_the_evaluations_and_both_verifiers_take_it(tmp_path: Path) -> None:
    evidence = certified(chain(key_of(0), STUDY), 0)
    fields = evidence.fields
    assert (fields["version"], fields["rounds"], fields["released"]) == (5, 4, 3)
    assert fields["evaluations"] == [
        {"round": 2, "released": True},
        {"round": 4, "released": False},
    ]
    assert fields["promise"]["basis"] == "whole-plan"
    assert check(evidence, public_hex(key_of(0))).steps == 22
    assert both(tmp_path, evidence) == (True, True)
    about = {"site": "site-0", "study": "study", "key": public_hex(key_of(0))}
    check_alone(to_bytes(evidence.certificate), most_steps=22, **about)
    with pytest.raises(LedgerError, match="more than the 21 steps"):
        check_alone(to_bytes(evidence.certificate), most_steps=21, **about)


def test_rounds_and_evaluations_are_told_apart_in_words() -> None:
    assert verify(chain(key_of(0), STUDY), "the ledger").charged == "4 rounds and 2 evaluations"
    assert verify(chain(key_of(0), STUDY[:2]), "the ledger").charged == "2 rounds"


def test_no_form_lets_an_evaluation_pass_as_a_trained_round_without_the_ledger() -> None:
    one_step = [(study, n, replace(PLAN, local_steps=1), *rest) for study, n, _, *rest in STUDY]
    about = {"site": "site-0", "study": "study", "key": public_hex(key_of(0)), "most_steps": 6}
    for version in (3, 5):
        evidence = certified_as(version, chain(key_of(0), one_step), 0)
        hides = {"rounds": 6, **({"evaluations": []} if version == 5 else {})}
        forged = resigned(evidence, key_of(0), **hides).certificate
        with pytest.raises(LedgerError, match="neither of its rounds"):
            check_alone(to_bytes(forged), **about)


def test_evaluations_of_several_plans_are_counted_without_the_ledger() -> None:
    """The site's policy became stricter between two rounds, so the study ran under two plans."""
    later = replace(PLAN, noise_multiplier=1.5)
    study = [(name, n, PLAN if n < 3 else later, *rest) for name, n, _, *rest in STUDY]
    about = {"site": "site-0", "study": "study", "key": public_hex(key_of(0)), "most_steps": 22}
    evidence = certified(chain(key_of(0), study), 0)
    assert len(evidence.fields["plans"]) == 2
    check_alone(to_bytes(evidence.certificate), **about)
    two = evidence.fields["evaluations"]
    for hides in ({"evaluations": []}, {"evaluations": two[:1]}, {"rounds": 5}, {"rounds": 3}):
        forged = resigned(evidence, key_of(0), **hides).certificate
        with pytest.raises(LedgerError, match="neither of its rounds"):
            check_alone(to_bytes(forged), **about)


def test_what_does_not_fit_is_named_by_its_kind(tmp_path: Path) -> None:
    tight = Budget(epsilon=0.9 * PLAN.epsilon_after(4), delta=2e-5)
    ledger = Ledger.create(tmp_path / "site.ledger", tight, Unit.RECORD)
    small = replace(PLAN, num_rounds=2, evaluations=None)
    run_round(ledger, 1, small)
    long = replace(small, local_steps=500)
    with pytest.raises(BudgetError, match="another 500 steps do not fit: this site no longer"):
        run_round(ledger, 2, long)
    wide = replace(PLAN, evaluations=Evaluations(rounds=(1,), noise_multiplier=0.2))
    ledger = Ledger.create(tmp_path / "other.ledger", tight, Unit.RECORD)
    run_round(ledger, 1, wide)
    with pytest.raises(BudgetError, match="another private evaluation does not fit: this"):
        evaluate(ledger, 1, wide)


def test_an_evaluation_that_is_alike_training_is_still_counted_by_its_kind(tmp_path: Path) -> None:
    alike = [(study, number, ALIKE, *rest) for study, number, _, *rest in STUDY]
    evidence = certified(chain(key_of(0), alike), 0)
    assert [event["steps"] for event in evidence.fields["events"]] == [6]
    assert both(tmp_path, evidence) == (True, True)

    def hidden(_: int, fields: dict[str, Any]) -> None:
        if "release_kind" in fields:
            del fields["release_kind"]
            fields["round"] += 10

    # As training of further rounds, the ledger would be charged beyond its list.
    forged = rechained(chain(key_of(0), alike), key_of(0), hidden)
    ledger = {"seq": len(forged) - 1, "hash": forged[-1].hash}
    stated = resigned(evidence, key_of(0), ledger=ledger).certificate
    assert both(tmp_path, Evidence(stated, tuple(forged))) == (False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("release_kind", "training"),
        ("release_kind", "vote"),
        ("release_kind", None),
        ("round", 1),
        ("round", 3),
        ("planned_steps", 20),
        ("event", {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 1, "is_private": True}),
        ("event", {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 5, "is_private": True}),
        ("event", {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 0, "is_private": True}),
    ],
)
def test_both_refute_an_evaluation_that_is_not_the_plan_s(
    tmp_path: Path, name: str, value: object
) -> None:
    def forge(_: int, fields: dict[str, Any]) -> None:
        if "release_kind" in fields and fields["round"] == 2:
            fields[name] = value
            if value is None:
                del fields[name]

    entries = rechained(chain(key_of(0), STUDY), key_of(0), forge)
    assert both(tmp_path, insider(entries)) == (False, False)


def refused(entries: list[Entry]) -> tuple[str, str]:
    """Why each verifier refuses a ledger, whatever a certificate says of it."""
    with pytest.raises(LedgerError) as ours:
        verify(entries, "it")
    rows = json.loads(insider(entries).to_json())["ledger"]
    theirs = independent().__globals__  # type: ignore[attr-defined]
    with pytest.raises(theirs["Refuted"]) as other:
        theirs["walk"](rows, public_hex(key_of(0)))
    return str(ours.value), str(other.value)


@pytest.mark.parametrize(
    ("earlier", "then", "ours", "other"),
    [
        (("study", 3, PLAN, True), STUDY[2], "a later round", "another moment"),
        (("study", 4, PLAN, True, EVALUATION), STUDY[2], "a later round", "another moment"),
        (STUDY[2], STUDY[1], "evaluated already", "a round before an evaluation"),
        (STUDY[5], STUDY[3], "evaluated already", "a round before an evaluation"),
    ],
)
def test_both_refute_a_ledger_whose_evaluations_are_out_of_their_order(
    earlier: tuple[Any, ...], then: tuple[Any, ...], ours: str, other: str
) -> None:
    said = refused(chain(key_of(0), [STUDY[0], earlier, then]))
    assert ours in said[0]
    assert other in said[1]


@pytest.mark.parametrize(
    "change",
    [
        {"evaluations": []},
        {"evaluations": [{"round": 2, "released": True}, {"round": 4, "released": True}]},
        {"evaluations": [{"round": 2, "released": True}]},
        {"rounds": 6},
        {"couples_units": True},
    ],
)
def test_both_refute_a_certificate_that_hides_or_invents(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    evidence = certified(chain(key_of(0), STUDY), 0)
    assert both(tmp_path, resigned(evidence, key_of(0), **change)) == (False, False)


def test_both_refute_an_older_form_that_has_no_place_for_evaluations(tmp_path: Path) -> None:
    old = certified_as(3, chain(key_of(0), STUDY), 0)
    assert both(tmp_path, old) == (False, False)


def test_what_was_received_is_matched_by_kind(tmp_path: Path) -> None:
    evidence = certified(chain(key_of(0), STUDY), 0)
    update = received_of(evidence, 1)
    scores = [entry for entry in evidence.ledger if entry.fields.get("release_kind")]
    seq = scores[0].fields["seq"]
    release = next(e for e in evidence.ledger if e.fields.get("reservation") == seq)
    sent = replace(
        update, round=2, sha256=release.fields["sha256"], head=release.hash, kind=EVALUATION
    )
    path, keys = tmp_path / "bundle.zip", {"site-0": public_hex(key_of(0))}
    for received, sound in (
        ([update, sent], True),
        ([replace(sent, kind=ReleaseKind.TRAINING)], False),
        ([replace(update, kind=EVALUATION)], False),
        ([sent, sent], False),
    ):
        write_bundle(path, Bundle({"site-0": evidence}, ADAPTER, received))
        assert list(read_bundle(path).received) == received
        assert verdicts(path, keys) == (sound, sound)
