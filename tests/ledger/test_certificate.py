"""A certificate states what its ledger gives; any other statement is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.canonical import canonical
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.ledger.certificate import Evidence, certify, check, read_evidence
from cloister.ledger.certificate_forms import VERSION
from cloister.ledger.chain import Entry
from cloister.ledger.stated import Basis
from cloister.privacy.plan import Plan
from tests.support.evidence import (
    ADAPTER,
    BASE,
    certified,
    certified_as,
    chain,
    key_of,
    keys_of,
    resigned,
)
from tests.support.ledgers import shared_plan, small_plan

PLAN, OTHER = small_plan(), small_plan(2.0)
KEY = keys_of()["site-0"]
FIGURES = ("promise", "promise_alone", "spent")


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    rounds = [("earlier", 1, OTHER, True), ("study", 1, PLAN, True), ("study", 2, PLAN, False)]
    return certified(chain(key_of(0), rounds), 0)


def test_it_states_the_study_and_the_data_set_s_life(evidence: Evidence) -> None:
    """Two plans ran: what is promised is the budget, what is spent an indication beside it."""
    fields = evidence.fields
    assert (fields["rounds"], fields["released"]) == (2, 1)
    assert [event["steps"] for event in fields["events"]] == [10]
    assert [event["noise_multiplier"] for event in fields["life"]["events"]] == [2.0, 1.0]
    promise, spent = fields["promise"], fields["spent"]
    assert (promise["epsilon"], promise["delta"]) == (50.0, 2e-5)
    assert (promise["basis"], promise["is_promise"]) == ("lifetime-budget", True)
    assert promise["adversaries"] == ["coordinator", "other-sites", "public"]
    assert (spent["basis"], spent["is_promise"]) == ("spent-so-far", False)
    assert spent["delta"] == 1e-5  # half of the budget's: where its rule compares it
    assert spent["epsilon"] == pytest.approx(PLAN.epsilon_after(2))
    assert spent["epsilon"] < spent["epsilon_rdp"]
    assert spent["epsilon"] < fields["life"]["spent"]["epsilon"]
    assert fields["plans"][0]["terms"]["max_grad_norm"] == 1.0
    assert fields["promise_alone"] is fields["spent_alone"] is None


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_one_plan_is_promised_whole_however_early_it_stops(rounds: int) -> None:
    entries = chain(key_of(0), [("study", r, PLAN, True) for r in range(1, rounds + 1)])
    fields = certified(entries, 0).fields
    assert fields["promise"]["basis"] == "whole-plan"
    assert fields["promise"]["epsilon"] == PLAN.epsilon_after(4)
    assert fields["promise"]["delta"] == PLAN.delta
    assert fields["spent"]["epsilon"] == PLAN.epsilon_after(rounds)


@pytest.mark.parametrize(
    "rounds",
    [
        [("study", 1, PLAN, True), ("study", 2, small_plan(num_rounds=6), True)],
        [("study", 1, PLAN, True), ("later", 1, PLAN, True)],
        [("study", r, PLAN, True) for r in range(1, 6)],
    ],
    ids=["two lengths", "one plan in two studies", "more rounds than planned"],
)
def test_more_than_one_plan_s_course_is_promised_the_budget(
    rounds: list[tuple[str, int, Plan, bool]],
) -> None:
    fields = certified(chain(key_of(0), rounds), 0).fields
    assert fields["promise"]["basis"] == "lifetime-budget"
    assert fields["promise"]["epsilon"] == 50.0


@pytest.mark.parametrize("version", [1, 2])
def test_older_certificates_still_verify(version: int) -> None:
    rounds = [("earlier", 1, OTHER, True), ("study", 1, PLAN, True)]
    old = certified_as(version, chain(key_of(0), rounds, is_old=True), 0)
    assert old.fields["version"] == version
    again = read_evidence(old.to_json(), "it")
    assert again.fields["epsilon"]["pld"] == PLAN.epsilon_after(1)
    verdict = check(again, KEY)
    assert verdict.promise.basis is Basis.LIFETIME_BUDGET  # whatever the certificate states
    with pytest.raises(LedgerError, match="epsilon differs from its ledger's"):
        check(resigned(old, key_of(0), epsilon={"pld": 0.1, "rdp": 0.2}), KEY)


def test_it_is_read_back_and_checked(evidence: Evidence) -> None:
    again = read_evidence(evidence.to_json(), "it")
    assert again == evidence
    assert check(again, KEY).charges == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"promise": {"epsilon": 0.1}}, "promise differs from its ledger's"),
        ({"promise": "spent"}, "promise differs from its ledger's"),
        ({"promise": {"delta": 1.0000001e-5}}, "promise differs from its ledger's"),
        ({"spent": {"epsilon": 0.1}}, "spent differs from its ledger's"),
        ({"spent": {"is_promise": True}}, "spent differs from its ledger's"),
        ({"spent": {"basis": "whole-plan"}}, "spent differs from its ledger's"),
        ({"rounds": 1}, "rounds differs from its ledger's"),
        ({"unit": "person"}, "unit differs from its ledger's"),
        ({"promise": {"adversaries": ["public"]}}, "promise differs from its ledger's"),
        ({"promise_alone": {"epsilon": 1.0}}, "promise_alone differs from its ledger's"),
        ({"study": "none"}, "its ledger lacks"),
        ({"ledger": {"seq": 1, "hash": "00"}}, "ledger differs from its ledger's"),
    ],
)
def test_a_site_cannot_state_what_its_ledger_does_not_give(
    evidence: Evidence, change: dict[str, Any], word: str
) -> None:
    fields = evidence.fields
    if change.get("promise") == "spent":
        change = {"promise": fields["spent"]}
    change = {
        name: {**(fields[name] or {}), **value} if name in FIGURES and value else value
        for name, value in change.items()
    }
    with pytest.raises(LedgerError, match=word):
        check(resigned(evidence, key_of(0), **change), KEY)


def test_shared_noise_is_certified_against_coalitions_of_its_size() -> None:
    shared = shared_plan()
    rounds = [("study", 1, shared, True), ("study", 2, shared, False)]
    made = certified(chain(key_of(0), rounds), 0)
    fields = made.fields
    assert fields["promise"]["adversaries"] == ["coordinator-with-1-other-sites", "public"]
    assert fields["promise"]["epsilon"] == pytest.approx(PLAN.epsilon_after(4))
    alone = replace(PLAN, noise_multiplier=(1 - 4 / 32**2) ** 0.5 / 3**0.5)
    assert fields["promise_alone"]["epsilon"] == pytest.approx(alone.epsilon_after(4))
    # Both charged rounds count: what a site masked in a round that was cut off may be unmasked.
    assert fields["spent_alone"]["epsilon"] == pytest.approx(alone.epsilon_after(2))
    assert check(made, KEY).charges == 2
    everybody = {**fields["promise"], "adversaries": ["coordinator", "other-sites", "public"]}
    for lie in ({"promise": everybody}, {"promise_alone": None}):
        with pytest.raises(LedgerError, match="differs from its ledger's"):
            check(resigned(made, key_of(0), **lie), KEY)


def test_a_budget_promises_nothing_against_all_who_know_the_shares() -> None:
    rounds = [("study", 1, shared_plan(), True), ("other", 1, PLAN, True)]
    fields = certified(chain(key_of(0), rounds), 0).fields
    assert fields["promise"]["adversaries"] == ["coordinator-with-1-other-sites", "public"]
    assert fields["promise"]["epsilon"] == 50.0
    assert fields["promise_alone"]["epsilon"] is None
    assert fields["life"]["spent_alone"]["epsilon"] > fields["spent_alone"]["epsilon"]


def test_shares_below_what_accountants_take_are_certified_as_no_privacy_alone() -> None:
    fields = certified(chain(key_of(0), [("study", 1, shared_plan(0.3), True)]), 0).fields
    assert fields["promise"]["epsilon"] is not None
    assert fields["promise_alone"]["epsilon"] is None


def test_another_s_signature_is_refused(evidence: Evidence) -> None:
    with pytest.raises(LedgerError, match="not signed by the key"):
        check(resigned(evidence, key_of(1)), KEY)
    with pytest.raises(LedgerError, match="not the given"):
        certify(evidence.ledger, None, site="x", base=BASE, adapter="a", key=key_of(1), time="then")


def test_the_study_must_be_known(evidence: Evidence) -> None:
    with pytest.raises(UsageError, match="has 2 studies; name one of earlier, study"):
        certify(evidence.ledger, None, site="x", base=BASE, adapter="a", key=key_of(0), time="then")
    with pytest.raises(UsageError, match="no round of it"):
        certify(
            evidence.ledger, "none", site="x", base=BASE, adapter="a", key=key_of(0), time="then"
        )


def test_an_unknown_version_and_other_forms_are_refused(evidence: Evidence) -> None:
    newer = resigned(evidence, key_of(0), version=VERSION + 1)
    with pytest.raises(BadFileError, match=f"version {VERSION + 1}"):
        read_evidence(newer.to_json(), "it")
    with pytest.raises(BadFileError, match="form"):
        read_evidence(resigned(evidence, key_of(0), more=1).to_json(), "it")
    body = json.dumps(evidence.fields).encode()  # not canonical
    spaced = Evidence(Entry(body, key_of(0).sign(body)), evidence.ledger)
    with pytest.raises(BadFileError, match="form"):
        read_evidence(spaced.to_json(), "it")
    for content in (b"", b"[]", b"{}", canonical({"certificate": 1, "ledger": []})):
        with pytest.raises(BadFileError, match="not a certificate"):
            read_evidence(content, "it")


def test_seeded_randomness_is_certified_as_no_privacy() -> None:
    entries = chain(key_of(0), [("study", 1, PLAN, True)], cap=None, seeded=True)
    fields = certified(entries, 0).fields
    assert fields["promise"]["epsilon"] is fields["spent"]["epsilon"] is None


def test_the_files_of_the_adapter_are_plain(tmp_path: Path) -> None:
    from cloister.evidence.fingerprint import adapter_files, adapter_sha256, base_sha256

    for name, content in ADAPTER.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("card")
    files = adapter_files(tmp_path)
    assert files == ADAPTER
    assert base_sha256(files) == BASE
    assert adapter_sha256(files) != adapter_sha256({**files, "more": b""})
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadFileError, match="plain files"):
        adapter_files(tmp_path)
