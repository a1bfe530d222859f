"""`cloister site feedback` lists, decides and writes feedback as records."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import EXAMPLE
from cloister.feedback.entries import Content
from cloister.feedback.store import FeedbackStore

CONTENT = Content(
    kind="text",
    version="0123456789ab",
    asked="chest \x1b[31mpain",
    answer={"label": "cardiology"},
    is_right=False,
    correction={"label": "dermatology"},
    unit=None,
    person="p7",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    store = FeedbackStore(tmp_path / "feedback.db", tmp_path / "key", make=True)
    yield store
    store.close()


def typed(tmp_path: Path, *arguments: str) -> int:
    command, *more = arguments
    sealed = [str(tmp_path / "feedback.db"), "--key", str(tmp_path / "key")]
    return run(["site", "feedback", command, *sealed, *more])


def ids(store: FeedbackStore, *contents: Content) -> list[str]:
    return [store.add(one, "desk", datetime(2026, 11, 29, tzinfo=UTC)) for one in contents]


def test_what_was_said_is_listed_decided_and_written(
    store: FeedbackStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third, marked = ids(
        store,
        CONTENT,
        replace(CONTENT, is_right=True, correction=CONTENT.answer, asked="a rash"),
        replace(CONTENT, asked="spam"),
        replace(CONTENT, asked="quotes", drew_on="documents"),
    )
    assert typed(tmp_path, "list") == 0
    listed = capsys.readouterr().out
    assert "\x1b" not in listed
    assert f"{first}  waiting" in listed
    assert "wrong: dermatology" in listed
    assert "never trained on: documents" in listed
    assert typed(tmp_path, "review", "--reject", third) == 0
    assert typed(tmp_path, "review", "--accept", "all") == 0
    assert "accepted: 2" in capsys.readouterr().out
    assert typed(tmp_path, "list", "--json", "--status", "waiting") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in told["feedback"]] == [marked]
    assert typed(tmp_path, "review", "--accept", marked) == 2
    assert "never trained on" in capsys.readouterr().err
    (tmp_path / "site.toml").write_text(EXAMPLE.replace('# text = "note"', 'text = "note"'))
    (tmp_path / "records.jsonl").write_text('{"note": "old", "label": "cardiology"}\n')
    out = tmp_path / "more.jsonl"
    more = ["--site", str(tmp_path / "site.toml"), "--with", str(tmp_path / "records.jsonl")]
    assert typed(tmp_path, "export", "--out", str(out), *more) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["note"] for row in rows] == [CONTENT.asked, "a rash", "old"]
    assert [row["label"] for row in rows] == ["dermatology", "cardiology", "cardiology"]
    assert typed(tmp_path, "review", "--erase", first, "--erase", second) == 0
    assert len(store.all()) == 2


def test_an_operator_decides_at_the_terminal(
    store: FeedbackStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids(
        store,
        CONTENT,
        replace(CONTENT, drew_on="documents"),
        replace(CONTENT, asked="third"),
        replace(CONTENT, asked="fourth"),
        replace(CONTENT, asked="fifth"),
    )
    # What drew on documents is not accepted, so it is asked about again.
    typed_in = iter(["a", "a", "r", "s", "x", "a", "q"])
    monkeypatch.setattr("typer.prompt", lambda text: next(typed_in))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert typed(tmp_path, "review") == 0
    assert [one.status.value for one in store.all()] == [
        "accepted",
        "rejected",
        "waiting",
        "accepted",
        "waiting",
    ]
    shown = capsys.readouterr().out
    assert "the answer drew on documents" in shown
    assert "2 wait" in shown


def test_what_is_wrong_is_said_once(
    store: FeedbackStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "more.jsonl")
    (kept,) = ids(store, CONTENT)
    cases = [
        (["review"], 2, "no terminal"),
        (["review", "--accept", "0"], 2, "no feedback"),
        (["review", "--accept", "all", "--reject", "all"], 2, "one of them"),
        (["list", "--status", "open"], 2, "waiting, accepted or rejected"),
        (["export", "--out", out], 2, "no accepted feedback"),
        (["export", "--out", str(tmp_path / "more.csv")], 2, ".jsonl"),
        (["export", "--out", out, "--with", str(tmp_path / "absent.csv")], 3, "no such file"),
    ]
    for arguments, code, told in cases:
        assert typed(tmp_path, *arguments) == code, arguments
        assert told in capsys.readouterr().err
    for command, code in (("list", 2), ("review", 2)):
        assert run(["site", "feedback", command, str(tmp_path / "feedback.db")]) == code
        assert "is encrypted" in capsys.readouterr().err
    assert run(["site", "feedback", "list", str(tmp_path / "absent.db")]) == 3
    assert [one.id for one in store.all()] == [kept]
    assert run(["serve", str(tmp_path), "--feedback-key", out, "--port", "0"]) == 2
    assert "without --feedback" in capsys.readouterr().err
