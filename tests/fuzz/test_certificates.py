"""Fuzzes certificates with both verifiers, with and without ledgers, under any signature."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.evidence.certificate_alone import check_alone
from cloister.evidence.site_facts import site_facts
from cloister.ledger.certificate import Evidence, check, read_evidence
from cloister.ledger.chain import Entry, Head
from tests.support.evidence import certified, certified_as, chain, key_of, keys_of
from tests.support.fuzzing import as_json, fuzz_slow, hostile_bytes, must_account, odd, reshaped
from tests.support.ledgers import banded_plan, shared_plan, small_plan
from tests.tools.test_independent_verifier import independent

KEY = keys_of()["site-0"]
EXPECTED: dict[str, Any] = {"site": "site-0", "study": "study", "key": KEY, "most_steps": 20}


@cache
def evidence(which: int) -> Evidence:
    """Of one plan, of a life of two, of shared noise, and of older versions."""
    plan = small_plan() if which != 2 else shared_plan()
    rounds = [("study", 1, plan, True)]
    if which == 1:
        rounds.insert(0, ("earlier", 1, small_plan(2.0), True))
    entries = chain(key_of(0), rounds)
    return certified_as(which - 2, entries, 0) if which > 2 else certified(entries, 0)


def signed(fields: Any) -> Entry:
    """A certificate of these fields under the right key, as far as it can be written at all."""
    try:
        body = canonical(fields)
    except (ValueError, RecursionError):
        body = as_json(fields) if not isinstance(fields, int) else b"1"
    return Entry(body, key_of(0).sign(body))


def as_file(certificate: Entry, ledger: Any) -> bytes:
    rows = [
        {"body": e.body.decode(errors="replace"), "signature": e.signature.hex()}
        for e in (certificate, *ledger)
    ]
    return as_json({"certificate": rows[0], "ledger": rows[1:]})


def examined(content: bytes) -> None:
    size = len(content)
    found = must_account(lambda: read_evidence(content, "it"), size)
    if isinstance(found, Evidence):
        must_account(lambda: check(found, KEY), size)


@fuzz_slow
@given(st.integers(0, 4).flatmap(lambda which: hostile_bytes(evidence(which).to_json())))
@example(b"[" * 100_000)
@example(b"[]," * 1_000_000)
@example(b'{"certificate":{"body":"{}","signature":""},"ledger":[1]}')
@example(b'{"certificate":{"body":"[]","signature":""},"ledger":[]}')
def test_files(content: bytes) -> None:
    examined(content)


@fuzz_slow
@given(
    st.integers(0, 4).flatmap(
        lambda which: st.tuples(st.just(which), reshaped(evidence(which).fields))
    )
)
def test_fields_under_the_right_key(given_fields: tuple[int, Any]) -> None:
    which, fields = given_fields
    examined(as_file(signed(fields), evidence(which).ledger))


def lone(content: bytes) -> object:
    return must_account(lambda: check_alone(content, **EXPECTED), len(content))


def alone(certificate: Entry) -> bytes:
    return as_json(
        {
            "body": certificate.body.decode(errors="replace"),
            "signature": certificate.signature.hex(),
        }
    )


def test_a_sound_one_alone_is_read() -> None:
    for which in range(3):
        assert lone(alone(evidence(which).certificate)) is not None


@fuzz_slow
@given(st.integers(0, 2).flatmap(lambda w: hostile_bytes(alone(evidence(w).certificate))))
@example(b"[" * 100_000)
@example(b"[]," * 1_000_000)
@example(b"x" * 2**23)
def test_bytes_alone(content: bytes) -> None:
    lone(content)


@fuzz_slow
@given(st.integers(0, 2).flatmap(lambda which: reshaped(evidence(which).fields)))
def test_fields_alone(fields: Any) -> None:
    lone(alone(signed(fields)))


def test_a_name_that_a_site_chose_is_shown_short_and_harmless() -> None:
    """Python's own errors quote an unknown argument's name, whatever it is."""
    for name in ("\x1b[1m", "a" * 5000, "two\nlines"):
        fields = dict(evidence(0).fields)
        fields["events"] = [{**fields["events"][0], name: 1}]
        assert lone(alone(signed(fields))) is None


NUMBERS = [0, -1, 1, 2**62, 10**300, 1e-300, 1e300, True, "1", None, [], 0.5]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        ("events", 0, "steps"),
        ("events", 0, "noise_multiplier"),
        ("events", 0, "sample_rate"),
        ("life", "budget", "epsilon"),
        ("life", "budget", "delta"),
        ("plans", 0, "terms", "delta"),
        ("plans", 0, "terms", "public_records"),
        ("plans", 0, "terms", "local_steps"),
        ("rounds",),
        ("promise", "delta"),
        ("ledger", "seq"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_each_number_alone(place: tuple[Any, ...], value: Any) -> None:
    """Under the right key, and a plan under the hash that it has."""
    import hashlib
    from copy import deepcopy

    fields = deepcopy(evidence(0).fields)
    parent: Any = fields
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    terms = fields["plans"][0]["terms"]
    fields["plans"][0]["sha256"] = hashlib.sha256(canonical(terms)).hexdigest()
    lone(alone(signed(fields)))
    examined(as_file(signed(fields), evidence(0).ledger))


@pytest.mark.parametrize("value", [None, 0.5, "x", [], {}, [[1]], 10**300, -1], ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        ("ledger",),
        ("ledger", "seq"),
        ("ledger", "hash"),
        ("promise_alone",),
        ("promise", "adversaries"),
        ("promise", "adversaries", 0),
        ("life", "spent"),
        ("life", "spent", "epsilon"),
        ("life", "spent", "unit"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_what_is_accepted_alone_can_be_told_on_a_card(place: tuple[Any, ...], value: Any) -> None:
    """One site's certificate must not end a study whose rounds are over."""
    from copy import deepcopy

    fields = deepcopy(evidence(1).fields)
    parent: Any = fields
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    found = lone(alone(signed(fields)))
    if isinstance(found, Mapping):
        told = site_facts(found)
        assert str(told.promise) + str(told.promise_alone) + str(told.lifetime)
        Head(**found["ledger"])


def test_a_plan_with_correlated_noise_and_terms_of_another_type_is_refused_alone() -> None:
    """Its noise is computed from them before they are compared with anything."""
    import hashlib
    from copy import deepcopy

    rounds = [("study", number, banded_plan(), True) for number in (1, 2)]
    fields = deepcopy(certified(chain(key_of(0), rounds), 0).fields)
    assert lone(alone(signed(fields))) is not None
    for name in fields["plans"][0]["terms"]:
        for value in (0, -1, [], 10**6, 10**15):
            changed = deepcopy(fields)
            terms = changed["plans"][0]["terms"]
            terms[name] = value
            changed["plans"][0]["sha256"] = hashlib.sha256(canonical(terms)).hexdigest()
            lone(alone(signed(changed)))


@fuzz_slow
@given(st.dictionaries(st.sampled_from(["site-0", "a", "\x1b[2J", "members"]), odd))
@example({"members": [{"site": 1, "ledger_key": [2]}]})
def test_keys_of_the_independent_verifier(tmp_path_factory: Any, keys: Any) -> None:
    """A file of keys that somebody sent is refused with one line, too."""
    path = tmp_path_factory.getbasetemp() / "keys.json"
    path.write_bytes(as_json(keys))
    assert independent()([str(path), str(path)]) == 1
