"""The labelling page answers only requests with its token, and checks every answer."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from cloister.labelling.access import OPEN
from cloister.labelling.app import make_label_app
from cloister.labelling.session import LabelSession
from tests.support.labelled import HOSTILE, TEXTS, opened, records, rows_of
from tests.support.web import cut_off

TOKEN = "a-token-of-23-characters"
PRIVATE = (("GET", "/begin"), ("GET", "/record?at=0"), ("GET", "/agreement"), ("POST", "/undo"))


def asked(
    app: ASGIApp,
    path: str,
    method: str = "GET",
    *,
    token: str | None = TOKEN,
    host: str = "127.0.0.1:8091",
    content: bytes | None = None,
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, headers=headers, content=content)

    return asyncio.run(ask())


def posted(app: ASGIApp, **answer: Any) -> httpx.Response:
    return asked(app, "/answer", "POST", content=json.dumps(answer).encode())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[LabelSession]:
    source = records(tmp_path / "notes.jsonl")
    with opened(source, tmp_path / "ann.jsonl", labels=("yes", "no")) as (session, _):
        yield session


@pytest.fixture
def app(session: LabelSession) -> ASGIApp:
    return make_label_app(session, TOKEN, {"source": "notes.jsonl"}, lambda: [["raw", 1, 1, 1]])


def test_records_are_for_whoever_has_the_token(app: ASGIApp) -> None:
    for method, path in PRIVATE:
        for token in (None, "", "x", TOKEN[:-1], f"{TOKEN}x"):
            answer = asked(app, path, method, token=token)
            assert answer.status_code == 401
            assert TEXTS[0] not in answer.text
    assert asked(app, "/begin").json()["text"] == TEXTS[0]
    for path in OPEN:  # what a browser loads before its script knows the token: no record
        assert asked(app, path, token=None).status_code == 200


def test_a_page_of_another_site_is_answered_nothing(app: ASGIApp) -> None:
    for host in ("evil.example", "evil.example:8091", "127.0.0.1.nip.io", "localhost.evil.example"):
        for _, path in PRIVATE:
            assert asked(app, path, host=host).status_code == 421
    assert asked(app, "/begin", host="localhost:8091").status_code == 200


def test_an_answer_that_is_cut_off_is_not_saved_and_no_error(
    app: ASGIApp, session: LabelSession
) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-length": "20"}
    assert cut_off(app, "/answer", headers) == 499
    assert session.answered == 0


def test_every_answer_forbids_what_the_page_does_not_need(app: ASGIApp) -> None:
    for path in (*OPEN, "/begin", "/nowhere"):
        headers = asked(app, path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    for path in OPEN:
        assert "http://" not in asked(app, path).text.replace("https://", "http://")
    assert asked(app, "/../../pyproject.toml").status_code == 404


def test_a_record_travels_as_data_and_never_as_html(app: ASGIApp) -> None:
    answer = asked(app, "/record?at=1")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"] == HOSTILE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[]",
        b'{"at": "0", "answer": "yes"}',
        b'{"at": true, "answer": "yes"}',
        b'{"at": 0}',
        b'{"at": 0, "answer": "perhaps"}',
        b'{"at": 0, "answer": ["yes"]}',
        b'{"at": 99, "answer": "yes"}',
        b'{"at": -1, "answer": "yes"}',
        b'{"at": 0, "answer": NaN}',
        b"[" * 5000,
    ],
)
def test_what_is_no_answer_changes_nothing(
    app: ASGIApp, session: LabelSession, content: bytes
) -> None:
    answer = asked(app, "/answer", "POST", content=content)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert session.answered == 0


def test_too_long_an_answer_is_not_read(app: ASGIApp) -> None:
    answer = asked(app, "/answer", "POST", content=b" " * (2**20 + 1))
    assert answer.status_code == 413
    for place in ("x", "-2", "1e3", "9" * 12, ""):
        assert asked(app, f"/record?at={place}").status_code == 422


def test_undo_takes_back_step_by_step_also_what_was_changed(app: ASGIApp, tmp_path: Path) -> None:
    out = tmp_path / "ann.jsonl"
    for at, answer in ((0, "yes"), (1, "no"), (0, "no")):
        assert posted(app, at=at, answer=answer).status_code == 200
    labels = [[row["label"] for row in rows_of(out)]]
    for _ in range(4):
        shown = asked(app, "/undo", "POST").json()
        labels.append([row["label"] for row in rows_of(out)])
    assert labels == [["no", "no"], ["no", "yes"], ["yes"], [], []]
    assert shown["can_undo"] is False
    assert shown["at"] == 0


def test_skipped_records_come_again_at_the_end(app: ASGIApp) -> None:
    assert asked(app, "/record?after=0").json()["at"] == 1
    for at in range(1, len(TEXTS) - 1):
        posted(app, at=at, answer="yes")
    assert posted(app, at=len(TEXTS) - 1, answer="yes").json()["at"] == 0
    assert posted(app, at=0, answer="yes").json()["at"] == len(TEXTS)
    assert asked(app, "/record?after=-1").json()["at"] == len(TEXTS)


def test_others_answers_are_not_shown_before_the_end(app: ASGIApp, session: LabelSession) -> None:
    for at in range(len(TEXTS)):
        assert asked(app, "/agreement").json() == {"agreement": None}
        posted(app, at=at, answer="yes")
    assert asked(app, "/agreement").json() == {"agreement": [["raw", 1, 1, 1]]}


def test_what_the_disk_refuses_is_said_and_not_counted(
    app: ASGIApp, session: LabelSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cloister.labelling.annotator_answers.os.fsync", full)
        answer = posted(app, at=0, answer="yes")
    assert (answer.status_code, answer.json()) == (
        507,
        {"error": "not saved (No space left on device)"},
    )
    assert session.answered == 0
