"""Fuzzes ledgers: a file of any bytes, and entries that an insider with the site's key wrote."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.ledger.anchor import anchor_of, read_anchor
from cloister.ledger.certificate import certify, check
from cloister.ledger.chain import Entry, Head, follow
from cloister.ledger.history import History
from cloister.ledger.replay import charged_rounds, forecast
from cloister.ledger.signing import public_hex
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from tests.support.evidence import chain, key_of
from tests.support.fuzzing import (
    as_json,
    fuzz,
    fuzz_slow,
    hostile_bytes,
    must_account,
    odd,
    reshaped,
)
from tests.support.ledgers import new_ledger, run_round, shared_plan, small_plan

KEY = key_of(0)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledgers") / "site.ledger"
    run_round(new_ledger(path), 1)
    return path


@fuzz_slow
@given(st.data())
def test_files(ledger: Path, data: st.DataObject) -> None:
    """A page of SQLite's that was damaged, cut or written over, and its head."""
    copy = ledger.with_name("copy.ledger")
    shutil.copy(ledger, copy)
    shutil.copy(f"{ledger}.head", f"{copy}.head")
    which = data.draw(st.sampled_from([copy, Path(f"{copy}.head")]))
    content = data.draw(hostile_bytes(which.read_bytes()))
    which.write_bytes(content)
    found = must_account(lambda: LedgerFile(copy).entries(), len(content) + copy.stat().st_size)
    if isinstance(found, list):
        must_account(lambda: verify(found, "it"), len(content))
    must_account(lambda: LedgerFile(copy).is_begun)


@cache
def entries(which: int) -> tuple[dict[str, Any], ...]:
    """What the entries of a sound ledger say: usual, and of shared noise."""
    plan = small_plan() if which == 0 else shared_plan()
    written = chain(KEY, [("study", 1, plan, True), ("study", 2, plan, False)])
    return tuple(
        {k: v for k, v in entry.fields.items() if k not in ("seq", "prev")} for entry in written
    )


def rewritten(said: list[Any]) -> list[Entry]:
    """A chain of these entries, as far as they can be written at all."""
    written: list[Entry] = []
    for number, fields in enumerate(said):
        place = {"seq": number, "prev": written[-1].hash if written else "0" * 64}
        whole = {**fields, **place} if isinstance(fields, dict) else fields
        try:
            body = canonical(whole)
        except (ValueError, RecursionError):
            body = as_json(whole) if not isinstance(whole, int) else b"1"
        written.append(Entry(body, KEY.sign(body)))
    return written


def examined(written: list[Entry]) -> None:
    size = sum(len(entry.body) for entry in written)
    must_account(lambda: follow(written, None, public_hex(KEY)), size)
    sound = must_account(lambda: verify(written, "it", public_key=public_hex(KEY)), size)
    must_account(
        lambda: certify(written, None, site="a", base="b", adapter="c", key=KEY, time="t"), size
    )
    history = History()

    def add() -> None:
        for entry in written:
            history.add(entry)

    must_account(add, size)
    if sound is not None:
        must_account(lambda: charged_rounds(written, history), size)
        must_account(lambda: forecast(history), size)


@fuzz_slow
@given(
    st.sampled_from([0, 1]).flatmap(lambda which: reshaped(list(entries(which)))),
)
def test_entries(said: Any) -> None:
    if isinstance(said, list):
        examined(rewritten(said))


@fuzz_slow
@given(st.sampled_from([0, 1]), st.data())
def test_terms_of_a_plan(which: int, data: st.DataObject) -> None:
    """The plan's own terms, under the hash that they have."""
    import hashlib

    said = [dict(fields) for fields in entries(which)]
    terms = data.draw(reshaped(said[1]["terms"]))
    try:
        digest = hashlib.sha256(canonical(terms)).hexdigest()
    except ValueError:
        digest = said[1]["plan"]
    said[1] |= {"terms": terms, "plan": digest}
    said[3] |= {"plan": digest}
    examined(rewritten(said))


@fuzz
@given(st.data())
def test_anchors(ledger: Path, data: st.DataObject) -> None:
    path = ledger.with_name("head.json")
    last = LedgerFile(ledger).entries()[-1]
    sound = anchor_of(last, "0" * 64).to_json()
    content = data.draw(reshaped(sound).map(as_json) | hostile_bytes(json.dumps(sound).encode()))
    path.write_bytes(content)
    must_account(lambda: read_anchor(path), len(content))


@fuzz
@given(st.binary(max_size=100) | st.just(b"[" * 50_000) | odd.map(as_json), st.integers(-2, 5))
@example(b'{"seq":1e999,"prev":""}', 0)
@example(b"\xff", 0)
@example(b"[" * 100_000, 0)
@example(b"9" * 5000, 0)
def test_one_entry(body: bytes, seq: int) -> None:
    entry = Entry(body, b"")
    must_account(lambda: follow([entry], None if seq < 0 else Head(seq, "0" * 64), None), len(body))
    must_account(lambda: History().add(entry), len(body))
    must_account(lambda: verify([entry], "it"), len(body))


def test_a_sound_one_is_read() -> None:
    written = rewritten(list(entries(0)))
    evidence = certify(written, None, site="a", base="b", adapter="c", key=KEY, time="t")
    assert check(evidence, public_hex(KEY)).releases == 1
