"""Feedback over HTTP needs consent and a receipt, and is marked and bounded."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloister.feedback import store as stores
from cloister.feedback.store import FeedbackStore
from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, Callers, add_caller, read_callers
from cloister.service.feedback_desk import FeedbackDesk
from cloister.service.figures import Figures
from cloister.service.library import Library
from cloister.service.versions import Served, Version
from tests.support.web import on_a_port

HOSTILE = "<script>alert(1)</script> fever"
SAID = {"is_right": True, "person": "p7", "consent": True}


class House:
    """Services of these tests over one store, each ended at its test's end."""

    def __init__(self, store: FeedbackStore | None) -> None:
        self.store = store
        self._ends = ExitStack()

    def client(
        self, version: Version, callers: Callers | None = None, library: Library | None = None
    ) -> httpx.Client:
        served, figures = Served(lambda: version), Figures(lambda: 0)
        batcher = Batcher(served, 1000, 10, figures.batch)
        self._ends.callback(batcher.close)
        desk = None if self.store is None else FeedbackDesk(self.store)
        service = Service(served, batcher, figures, 60, library, desk)
        app = make_app(service, callers or Callers(), CallerRates(None, time.monotonic))
        address = self._ends.enter_context(on_a_port(app))
        client = httpx.Client(base_url=address, timeout=60, trust_env=False)
        return self._ends.enter_context(client)

    def close(self) -> None:
        self._ends.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(FeedbackStore(tmp_path / "feedback.db", make=True))
    yield house
    house.close()


def answered(client: httpx.Client, asked: Any) -> dict[str, Any]:
    """What a program sends back: the input, the answer and its receipt."""
    told = client.post("/v1/predict", json={"inputs": [asked]}).json()
    return {
        "input": asked,
        "answer": told["predictions"][0],
        "receipt": told["receipts"][0],
    }


def kept(house: House) -> list[dict[str, Any]]:
    assert house.store is not None
    return [one.to_json() for one in house.store.all()]


def test_a_correction_is_kept_with_everything_that_was_said(
    house: House, classifier: Version
) -> None:
    client = house.client(classifier)
    about = client.get("/v1/feedback").json()
    assert about == {"kind": "text", "labels": ["x", "y", "z"]}
    assert client.get("/healthz").json()["feedback"] is True
    sent = answered(client, HOSTILE)
    other = next(one for one in "xyz" if one != sent["answer"]["label"])
    wrong = {"is_right": False, "correction": {"label": other}, "unit": "r3", "consent": True}
    answer = client.post("/v1/feedback", json={**sent, **wrong})
    assert answer.status_code == 201
    (found,) = kept(house)
    assert found["id"] == answer.json()["id"]
    assert found["asked"] == HOSTILE
    assert found["answer"] == {"label": sent["answer"]["label"]}
    assert found["correction"] == {"label": other}
    assert (found["unit"], found["person"], found["is_right"]) == ("r3", None, False)
    assert (found["version"], found["caller"]) == (classifier.digest, "anyone")
    assert (found["status"], found["drew_on"]) == ("waiting", "")


def test_each_task_has_its_feedback(
    house: House,
    pairs: Version,
    several: Version,
    scorer: Version,
    tagger: Version,
    recommender: Version,
    finder: Version,
    chat: Version,
) -> None:
    cases: list[tuple[Version, Any, dict[str, Any]]] = [
        (pairs, ["chest pain", "fever"], {"label": "no"}),
        (several, "fever", {"labels": ["z"]}),
        (scorer, "fever", {"score": 3}),
        (tagger, "the left knee", {"entities": [{"type": "BODY", "words": [1, 3]}]}),
        (recommender, ["a", "b"], {"item": "d"}),
        (finder, "fever", {"label": "home"}),
        (chat, "chest pain", {"reply": "rest"}),
    ]
    for version, asked, correction in cases:
        client = house.client(version)
        sent = answered(client, asked)
        said = {**SAID, "is_right": False, "correction": correction}
        assert client.post("/v1/feedback", json={**sent, **said}).status_code == 201
        assert kept(house)[-1]["correction"] == correction
        if version is not chat:  # an untrained reply may be blank, which none can call right
            assert client.post("/v1/feedback", json={**sent, **SAID}).status_code == 201
        wrong = {**said, "correction": {"nothing": 1}}
        assert client.post("/v1/feedback", json={**sent, **wrong}).status_code == 400


def test_what_cannot_be_kept_has_one_message_and_leaves_nothing(
    house: House, classifier: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = house.client(classifier)
    sent = {**answered(client, "fever"), **SAID}
    told = next(one for one in "xyz" if one != sent["answer"]["label"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"consent": None}, "consent"),
        ({"consent": "true"}, "consent"),
        ({"consent": False}, "consent"),
        ({"person": None}, "unit, person"),
        ({"person": " "}, "person"),
        ({"person": "p7 "}, "without blanks"),
        ({"unit": "\u3000r3"}, "without blanks"),
        ({"person": "a\nb"}, "person"),
        ({"person": "x" * 300}, "person"),
        ({"unit": 3}, "unit"),
        ({"is_right": "yes"}, "is_right"),
        ({"correction": {"label": told}}, "leave it out"),
        ({"is_right": False}, "correction"),
        ({"is_right": False, "correction": {"label": "w"}}, "x, y, z"),
        ({"input": "another text"}, "receipt"),
        ({"answer": {"label": told}}, "receipt"),
        ({"receipt": None}, "receipt"),
        ({"receipt": "0123.n.4567"}, "receipt"),
        ({"input": ["fever"]}, "list given"),
        ({"answer": []}, "answer"),
        ({"more": 1}, "unknown field"),
    ]
    for change, word in cases:
        answer = client.post("/v1/feedback", json={**sent, **change})
        assert answer.status_code == 400, change
        assert word in answer.json()["error"]["message"]
    assert client.post("/v1/feedback", json=[]).status_code == 400
    assert kept(house) == []
    monkeypatch.setattr(stores, "MOST_ROWS", 1)
    assert client.post("/v1/feedback", json=sent).status_code == 201
    assert client.post("/v1/feedback", json=sent).status_code == 429
    assert len(kept(house)) == 1


def test_a_store_that_cannot_be_written_names_no_place(
    house: House, classifier: Version, tmp_path: Path
) -> None:
    client = house.client(classifier)
    sent = {**answered(client, "fever"), **SAID}
    assert house.store is not None
    house.store.close()
    answer = client.post("/v1/feedback", json=sent)
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text


def test_replies_from_documents_and_of_personal_adapters_are_marked(
    house: House, talker: Version, library: Library, classifier: Version
) -> None:
    turns = [{"role": "user", "content": "chest pain at rest"}]
    client = house.client(talker, library=library)
    body = {"messages": turns, "max_tokens": 8}
    whole = client.post("/v1/chat/completions", json=body).json()
    streamed = client.post("/v1/chat/completions", json={**body, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    receipts = {whole["receipt"], *(one["receipt"] for one in events if "receipt" in one)}
    assert len(receipts) == 1
    reply = whole["choices"][0]["message"]["content"]
    said = {**SAID, "is_right": False, "correction": {"reply": "rest"}}
    sent = {"input": turns, "answer": {"reply": reply}, "receipt": whole["receipt"], **said}
    assert client.post("/v1/feedback", json=sent).status_code == 201
    assert kept(house)[-1]["drew_on"] == "documents"
    # The service without documents knows the same answer, mark and all.
    assert house.client(talker).post("/v1/feedback", json=sent).status_code == 201
    assert kept(house)[-1]["drew_on"] == "documents"
    own = house.client(replace(classifier, is_personal=True))
    sent = {**answered(own, "fever"), **SAID}
    assert own.post("/v1/feedback", json=sent).status_code == 201
    assert kept(house)[-1]["drew_on"] == "personal adapter"


def test_callers_are_named_and_strangers_are_not_heard(
    house: House, classifier: Version, tmp_path: Path
) -> None:
    file = tmp_path / "callers.json"
    token = add_caller(file, "reception")
    client = house.client(classifier, read_callers(file))
    assert client.post("/v1/feedback", json=SAID).status_code == 401
    assert client.get("/v1/feedback").status_code == 401
    client.headers["authorization"] = f"Bearer {token}"
    sent = {**answered(client, "fever"), **SAID}
    assert client.post("/v1/feedback", json=sent).status_code == 201
    assert kept(house)[-1]["caller"] == "reception"


def test_a_service_without_a_store_takes_none(classifier: Version, tmp_path: Path) -> None:
    house = House(None)
    client = house.client(classifier)
    told = client.post("/v1/predict", json={"inputs": ["fever"]}).json()
    assert "receipts" not in told
    assert "feedback" not in client.get("/healthz").json()
    answer = client.post("/v1/feedback", json=SAID)
    assert answer.status_code == 404
    assert "--feedback" in answer.json()["error"]["message"]
    house.close()
