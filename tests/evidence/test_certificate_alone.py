"""From a certificate without its ledger, every ε is recomputed from its plans and budget."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from cloister.canonical import canonical
from cloister.errors import LedgerError
from cloister.evidence.certificate_alone import MOST_BYTES, check_alone, to_bytes
from cloister.ledger.certificate import Evidence
from cloister.ledger.chain import Entry
from tests.support.evidence import certified, certified_as, chain, key_of, keys_of, resigned
from tests.support.ledgers import banded_plan, shared_plan, small_plan

PLAN, OTHER = small_plan(), small_plan(2.0)
KEY = keys_of()["site-0"]
CASES: dict[str, Callable[[], Evidence]] = {
    "one plan": lambda: certified(chain(key_of(0), [("study", 1, PLAN, True)]), 0),
    "two plans": lambda: certified(
        chain(key_of(0), [("earlier", 1, OTHER, True), ("study", 1, PLAN, True)]), 0
    ),
    "two plans of one study": lambda: certified(
        chain(key_of(0), [("study", 1, OTHER, True), ("study", 2, PLAN, False)]), 0
    ),
    "correlated noise": lambda: certified(
        chain(key_of(0), [("study", r, banded_plan(), True) for r in range(1, 5)]), 0
    ),
    "shared": lambda: certified(chain(key_of(0), [("study", 1, shared_plan(), True)]), 0),
    "no privacy": lambda: certified(
        chain(key_of(0), [("study", 1, PLAN, True)], cap=None, seeded=True), 0
    ),
}


@cache
def case(name: str) -> Evidence:
    return CASES[name]()


@pytest.fixture(params=CASES)
def evidence(request: pytest.FixtureRequest) -> Evidence:
    return case(request.param)


def checked(certificate: Entry, **changes: Any) -> Any:
    expected = {"site": "site-0", "study": "study", "key": KEY, "most_steps": 20} | changes
    return check_alone(to_bytes(certificate), **expected)


def test_a_sound_one_is_read(evidence: Evidence) -> None:
    assert checked(evidence.certificate) == evidence.fields


LIES: dict[str, Any] = {
    "a smaller ε": lambda f: {"promise": {**f["promise"], "epsilon": 0.5}},
    "an indication sold as the promise": lambda f: {
        "promise": {
            **f["promise"],
            "epsilon": f["spent"]["epsilon"] and 0.99 * f["spent"]["epsilon"],
            "delta": f["spent"]["delta"] * 0.9,
        }
    },
    "an indication said to be a promise": lambda f: {"spent": {**f["spent"], "is_promise": True}},
    "another δ": lambda f: {"promise": {**f["promise"], "delta": 1e-3}},
    "a larger basis": lambda f: {
        "promise": {
            **f["promise"],
            "basis": "lifetime-budget",
            "accountant": "budget-rule",
            "epsilon": 0.5,
        }
    },
    "another unit": lambda f: {"unit": "person"},
    "a plan with other terms": lambda f: {
        "plans": [{**f["plans"][0], "terms": {**f["plans"][0]["terms"], "max_grad_norm": 9.0}}]
    },
    "no plan": lambda f: {"plans": []},
    "no event": lambda f: {"events": []},
    "events of another plan": lambda f: {"events": [{**f["events"][0], "noise_multiplier": 3.0}]},
    "steps beyond the plan": lambda f: {"events": [{**f["events"][0], "steps": 10**9}]},
    "rounds in words": lambda f: {"rounds": "Jane"},
    "more rounds released than charged": lambda f: {"released": f["rounds"] + 1},
    "fewer rounds released than none": lambda f: {"released": -1},
    "rounds that no step was charged for": lambda f: {"rounds": 100, "released": 100},
    "steps of no round": lambda f: {"rounds": 0, "released": 0},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_does_not_hold_together_is_refused(evidence: Evidence, lie: Any) -> None:
    told = resigned(evidence, key_of(0), **lie(evidence.fields)).certificate
    with pytest.raises(LedgerError, match="contradicts itself"):
        checked(told)


def test_a_whole_plan_is_not_promised_where_another_ran() -> None:
    both, alone = case("two plans"), case("one plan")
    told = resigned(both, key_of(0), promise=alone.fields["promise"], spent=alone.fields["spent"])
    with pytest.raises(LedgerError, match="more than the plan was charged"):
        checked(told.certificate)


def test_whose_and_of_what_it_is_are_checked() -> None:
    certificate = case("one plan").certificate
    for change in ({"site": "site-1"}, {"study": "another"}):
        with pytest.raises(LedgerError, match="another site or study"):
            checked(certificate, **change)
    with pytest.raises(LedgerError, match="not signed"):
        checked(certificate, key=keys_of()["site-1"])
    with pytest.raises(LedgerError, match="19 steps"):
        checked(certificate, most_steps=19)


def test_other_forms_are_refused() -> None:
    evidence = case("one plan")
    old = certified_as(2, evidence.ledger, 0)
    for other in (old, resigned(evidence, key_of(0), more=1)):
        with pytest.raises(LedgerError, match="form"):
            checked(other.certificate)
    expected = {"site": "site-0", "study": "study", "key": KEY, "most_steps": 20}
    for content in (b"", b"[]", b"{}", b"[" * 10_000, canonical({"body": 1, "signature": "00"})):
        with pytest.raises(LedgerError, match="form"):
            check_alone(content, **expected)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="at most"):
        check_alone(bytes(MOST_BYTES + 1), **expected)  # type: ignore[arg-type]
    edited = replace(evidence.certificate, body=evidence.certificate.body.replace(b"then", b"Jane"))
    with pytest.raises(LedgerError, match="not signed"):
        checked(edited)
