"""A certificate states what its ledger gives, and nothing else is believed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.privacy.certificate import Evidence, certify, check, read_evidence
from cloister.privacy.chain import Entry, canonical
from tests.support.evidence import ADAPTER, BASE, certified, chain, key_of, keys_of, resigned
from tests.support.ledgers import shared_plan, small_plan

PLAN, OTHER = small_plan(), small_plan(2.0)
KEY = keys_of()["site-0"]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    rounds = [("earlier", 1, OTHER, True), ("study", 1, PLAN, True), ("study", 2, PLAN, False)]
    return certified(chain(key_of(0), rounds), 0)


def test_it_states_the_study_and_the_data_set_s_life(evidence: Evidence) -> None:
    fields = evidence.fields
    assert (fields["rounds"], fields["released"]) == (2, 1)
    assert [event["steps"] for event in fields["events"]] == [10]
    assert [event["noise_multiplier"] for event in fields["life"]["events"]] == [2.0, 1.0]
    assert fields["epsilon"]["pld"] == pytest.approx(PLAN.epsilon_after(2))
    assert fields["epsilon"]["pld"] < fields["epsilon"]["rdp"]
    assert fields["epsilon"]["pld"] < fields["life"]["epsilon"]["pld"]
    assert fields["plans"][0]["terms"]["max_grad_norm"] == 1.0
    assert fields["adversaries"] == ["coordinator", "other-sites", "public"]


def test_it_is_read_back_and_checked(evidence: Evidence) -> None:
    again = read_evidence(evidence.to_json(), "it")
    assert again == evidence
    assert check(again, KEY).charges == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"epsilon": {"pld": 0.1, "rdp": 0.2}}, "another epsilon"),
        ({"delta": 1.0000001e-5}, "another delta"),
        ({"rounds": 1}, "another rounds"),
        ({"unit": "person"}, "another unit"),
        ({"adversaries": ["public"]}, "another adversaries"),
        ({"epsilon_alone": {"pld": 1.0, "rdp": 2.0}}, "another epsilon_alone"),
        ({"study": "none"}, "its ledger has not"),
        ({"ledger": {"seq": 1, "hash": "00"}}, "another ledger"),
    ],
)
def test_a_site_cannot_state_what_its_ledger_does_not_give(
    evidence: Evidence, change: dict[str, object], word: str
) -> None:
    with pytest.raises(LedgerError, match=word):
        check(resigned(evidence, key_of(0), **change), KEY)


def test_shared_noise_is_certified_against_coalitions_of_its_size() -> None:
    shared = shared_plan()
    rounds = [("study", 1, shared, True), ("study", 2, shared, False), ("other", 1, PLAN, True)]
    made = certified(chain(key_of(0), rounds), 0)
    fields = made.fields
    assert fields["adversaries"] == ["coordinator-with-1-other-sites", "public"]
    assert fields["epsilon"]["pld"] == pytest.approx(PLAN.epsilon_after(2))
    # Both charged rounds count: what a site masked in a round that was cut off may be unmasked.
    alone = replace(PLAN, noise_multiplier=(1 - 4 / 32**2) ** 0.5 / 3**0.5)
    assert fields["epsilon_alone"]["pld"] == pytest.approx(alone.epsilon_after(2))
    assert fields["life"]["adversaries"] == fields["adversaries"]
    assert fields["life"]["epsilon_alone"]["pld"] > fields["epsilon_alone"]["pld"]
    assert check(made, KEY).charges == 3
    for lie in ({"adversaries": ["coordinator", "other-sites", "public"]}, {"epsilon_alone": None}):
        with pytest.raises(LedgerError, match="states another"):
            check(resigned(made, key_of(0), **lie), KEY)


def test_shares_below_what_accountants_take_are_certified_as_no_privacy_alone() -> None:
    fields = certified(chain(key_of(0), [("study", 1, shared_plan(0.3), True)]), 0).fields
    assert fields["epsilon"]["pld"] is not None
    assert fields["epsilon_alone"] == {"pld": None, "rdp": None}


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
    newer = resigned(evidence, key_of(0), version=3)
    with pytest.raises(BadFileError, match="version 3"):
        read_evidence(newer.to_json(), "it")
    with pytest.raises(BadFileError, match="form"):
        read_evidence(resigned(evidence, key_of(0), more=1).to_json(), "it")
    body = json.dumps(evidence.fields).encode()  # not canonical
    spaced = Evidence(Entry(body, key_of(0).sign(body)), evidence.ledger)
    with pytest.raises(BadFileError, match="form"):
        read_evidence(spaced.to_json(), "it")
    for content in (b"", b"[]", b"{}", canonical({"certificate": 1, "ledger": []})):
        with pytest.raises(BadFileError, match="no certificate"):
            read_evidence(content, "it")


def test_seeded_randomness_is_certified_as_no_privacy() -> None:
    entries = chain(key_of(0), [("study", 1, PLAN, True)], cap=None, seeded=True)
    fields = certified(entries, 0).fields
    assert fields["epsilon"] == {"pld": None, "rdp": None}


def test_the_files_of_the_adapter_are_plain(tmp_path: Path) -> None:
    from cloister.release.fingerprint import adapter_files, adapter_sha256, base_sha256

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
