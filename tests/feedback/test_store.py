"""The feedback store is private, sealed if there is a key, bounded, and always complete."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.errors import BadFileError, CloisterError, DataError, UsageError
from cloister.feedback import store as stores
from cloister.feedback.entries import Content, ReviewState
from cloister.feedback.store import FeedbackStore, StoreFullError

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>'); DROP TABLE feedback; --"
CONTENT = Content(
    kind="text",
    version="0123456789ab",
    asked=HOSTILE,
    answer={"label": "x"},
    is_right=False,
    correction={"label": "y"},
    unit=None,
    person="patient 7041",
)


def test_what_was_kept_is_there_again_with_the_owners_rights_alone(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    first = FeedbackStore(file, make=True)
    kept = first.add(CONTENT, "desk", NOW)
    secret = first.secret
    first.close()
    again = FeedbackStore(file, make=True)
    (found,) = again.all()
    assert (found.id, found.caller, found.status) == (kept, "desk", ReviewState.WAITING)
    assert found.at == "2026-11-29T12:00:00+00:00"
    assert found.content == CONTENT
    assert again.secret == secret
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_sealed_store_holds_no_word_of_it_and_opens_by_its_own_key_alone(tmp_path: Path) -> None:
    file, key = tmp_path / "feedback.db", tmp_path / "feedback.key"
    store = FeedbackStore(file, key, make=True)
    identifier = store.add(CONTENT, "desk", NOW)
    assert key.stat().st_mode & 0o777 == 0o600
    for word in (b"script", b"patient 7041", b"label"):  # no two bytes, which chance writes too
        assert word not in file.read_bytes()
    assert FeedbackStore(file, key).all()[0].content == CONTENT
    other = tmp_path / "other.key"
    FeedbackStore(tmp_path / "other.db", other, make=True)
    with pytest.raises(BadFileError, match="does not decrypt"):
        FeedbackStore(file, other)
    with pytest.raises(UsageError, match="give its key"):
        FeedbackStore(file)
    store.add(replace(CONTENT, asked="another"), "desk", NOW)
    with sqlite3.connect(file) as base:  # one row's content in the other's place
        base.execute(
            "UPDATE feedback SET content = (SELECT content FROM feedback WHERE id != ?) "
            "WHERE id = ?",
            (identifier, identifier),
        )
    with pytest.raises(BadFileError, match=identifier):
        store.all()


def test_a_key_for_a_store_without_one_is_refused(tmp_path: Path) -> None:
    FeedbackStore(tmp_path / "plain.db", make=True)
    key = tmp_path / "key"
    FeedbackStore(tmp_path / "sealed.db", key, make=True)
    with pytest.raises(UsageError, match="not encrypted"):
        FeedbackStore(tmp_path / "plain.db", key)
    (tmp_path / "short").write_text("abc")
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(BadFileError, match="not a feedback key"):
        FeedbackStore(tmp_path / "new.db", tmp_path / "short", make=True)
    assert not (tmp_path / "new.db").exists()
    key.chmod(0o644)
    with pytest.raises(BadFileError, match="chmod 600"):
        FeedbackStore(tmp_path / "sealed.db", key)


def garbage(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)


def foreign(file: Path) -> None:
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE about(name, value)")


def readable(file: Path) -> None:
    FeedbackStore(file, make=True).close()
    file.chmod(0o640)


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("make", [garbage, foreign, readable, folder])
def test_what_is_no_store_is_refused_in_one_message(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "feedback.db"
    make(file)
    if make is not readable and file.is_file():
        file.chmod(0o600)
    for is_made in (False, True):
        with pytest.raises(CloisterError) as caught:
            FeedbackStore(file, make=is_made)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "makes a store" not in str(caught.value)


def test_a_missing_store_is_made_only_where_it_is_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="makes a store"):
        FeedbackStore(tmp_path / "feedback.db")
    assert not (tmp_path / "feedback.db").exists()


def test_content_of_another_type_is_said_to_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    FeedbackStore(file, make=True).close()
    with sqlite3.connect(file) as base:
        base.execute("INSERT INTO feedback VALUES (1, 'a', 'b', 'c', 'waiting', 'text')")
    with pytest.raises(BadFileError, match="cannot be read \\(changed since\\)"):
        FeedbackStore(file).all()


def test_size_and_rows_of_a_caller_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeedbackStore(tmp_path / "feedback.db", make=True)
    with pytest.raises(DataError, match="at most 65536"):
        store.add(replace(CONTENT, asked="x" * 65_536), "desk", NOW)
    monkeypatch.setattr(stores, "MOST_ROWS", 2)
    first = store.add(CONTENT, "desk", NOW)
    store.add(CONTENT, "desk", NOW)
    with pytest.raises(StoreFullError):
        store.add(CONTENT, "desk", NOW)
    store.add(CONTENT, "another", NOW)
    store.erase(first)
    store.add(CONTENT, "desk", NOW)
    assert len(store.all()) == 3


def test_decisions_stay_and_private_state_is_never_accepted(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    store = FeedbackStore(file, make=True)
    good, marked = (
        store.add(replace(CONTENT, drew_on=drew_on), "desk", NOW) for drew_on in ("", "documents")
    )
    store.decide(good, ReviewState.ACCEPTED)
    with pytest.raises(UsageError, match="never trained on"):
        store.decide(marked, ReviewState.ACCEPTED)
    with pytest.raises(UsageError, match="no feedback"):
        store.decide("0", ReviewState.ACCEPTED)
    with pytest.raises(UsageError, match="no feedback"):
        store.erase("0")
    store.decide(marked, ReviewState.REJECTED)
    again = FeedbackStore(file)
    assert [one.id for one in again.all(ReviewState.ACCEPTED)] == [good]
    assert [one.id for one in again.all(ReviewState.REJECTED)] == [marked]
    assert again.all(ReviewState.WAITING) == []


def test_erased_words_are_gone_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    store = FeedbackStore(file, make=True)
    identifier = store.add(CONTENT, "desk", NOW)
    assert b"<script>" in file.read_bytes()
    store.erase(identifier)
    assert b"<script>" not in file.read_bytes()
