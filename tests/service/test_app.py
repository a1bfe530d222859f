"""Callers get predictions and replies, or a status that fits the error."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloister.errors import DataError, UsageError
from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.bodies import MOST_BYTES
from cloister.service.callers import CallerRates, Callers, add_caller, read_callers
from cloister.service.figures import Figures
from cloister.service.versions import Served, Version
from cloister.serving.predictions import Classified
from cloister.serving.word_reasons import MOST_PARTS
from tests.support.web import on_a_port

HELLO = [{"role": "user", "content": "the patient has chest pain"}]


class Desk:
    """Services of these tests, each ended at its test's end."""

    def __init__(self) -> None:
        self._ends = ExitStack()

    def client(
        self,
        version: Version,
        callers: Callers | None = None,
        *,
        a_minute: int | None = None,
        most_waiting: int = 10,
        seconds: float = 60,
        host: str | None = None,
    ) -> httpx.Client:
        served = Served(lambda: version)
        figures = Figures(lambda: batcher.waiting)
        batcher = Batcher(served, 1000, most_waiting, figures.batch)
        self._ends.callback(batcher.close)
        service = Service(served, batcher, figures, seconds)
        app = make_app(service, callers or Callers(), CallerRates(a_minute, lambda: 0.0))
        address = self._ends.enter_context(on_a_port(app))
        named = {} if host is None else {"host": host}
        client = httpx.Client(base_url=address, headers=named, timeout=60, trust_env=False)
        return self._ends.enter_context(client)

    def close(self) -> None:
        self._ends.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_predictions_are_the_models_own(
    desk: Desk,
    classifier: Version,
    several: Version,
    scorer: Version,
    finder: Version,
    pairs: Version,
    tagger: Version,
) -> None:
    long = ["chest pain", "no fever", "the patient has a severe rash and a mild cough since"]
    for version in (classifier, several, scorer, finder, pairs, tagger):
        texts = [[text, "fever"] for text in long] if version is pairs else long
        answer = desk.client(version).post("/v1/predict", json={"inputs": texts})
        assert answer.status_code == 200
        told = answer.json()
        known = [one.to_json() for one in version.model.predict(texts)]
        for one, own in zip(told["predictions"], known, strict=True):
            assert one.keys() == own.keys()
            assert one.get("label") == own.get("label")
            assert one.get("probabilities", {}) == pytest.approx(own.get("probabilities", {}))
            assert one.get("tags") == own.get("tags")
            assert one.get("labels") == own.get("labels")
            assert one.get("score") == pytest.approx(own.get("score"))
            nearest = [found["id"] for found in own.get("passages", [])]
            assert [found["id"] for found in one.get("passages", [])] == nearest
            assert one["is_cut"] == own["is_cut"]
        assert (told["model"], told["version"]) == (version.name, version.digest)


def test_items_are_ranked_for_lists_and_texts_of_ids(desk: Desk, recommender: Version) -> None:
    client = desk.client(recommender)
    answer = client.post("/v1/predict", json={"inputs": [["a", "b"], "a b", "d"]}).json()
    first, again, other = answer["predictions"]
    assert first == again
    assert [len(one["items"]) for one in (first, other)] == [2, 3]
    known = recommender.model.predict([["a", "b"]])[0].to_json()["items"]
    assert [one["item"] for one in first["items"]] == [one["item"] for one in known]
    for wrong in (["nothing"], [], [1.5], 7):
        refused = client.post("/v1/predict", json={"inputs": [["a"], wrong]})
        assert refused.status_code == 400
        assert "input 2" in refused.json()["error"]["message"]


def test_a_reason_is_the_item_without_which_the_recommendation_falls_most(
    desk: Desk, recommender: Version
) -> None:
    """Against all scores of the public way to ask: with each item left out, over the items that the
    person lacks."""
    client, items = desk.client(recommender), ["a", "b"]
    asked = {"inputs": [items, "d"], "reasons": True}
    first, single = client.post("/v1/predict", json=asked).json()["predictions"]
    lacking = ["c", "d"]

    def shares(has: list[str]) -> dict[str, float]:
        (one,) = recommender.model.predict([has], top=4)
        scores = {found["item"]: found["score"] for found in one.to_json()["items"]}
        total = math.log(sum(math.exp(scores[item]) for item in lacking))
        return {item: scores[item] - total for item in lacking}

    whole = shares(items)
    for one in first["items"]:
        falls = {
            left: whole[one["item"]] - shares([i for i in items if i != left])[one["item"]]
            for left in items
        }
        left = max(items, key=lambda item: falls[item])
        if falls[left] > 1e-6:
            assert one["because"]["item"] == left
            # Two computations of float32 scores, of which each rounds at about 1e-6.
            assert one["because"]["moved"] == pytest.approx(falls[left], abs=1e-4)
        else:
            assert one.get("because", {"moved": 0})["moved"] < 1e-4
    assert any("because" in one for one in first["items"])
    # Of one item nothing can be left out; without reasons nothing changes but them.
    assert not any("because" in one for one in single["items"])
    plain = client.post("/v1/predict", json={"inputs": [items]}).json()["predictions"][0]
    assert [(one["item"], one["score"]) for one in first["items"]] == [
        (one["item"], pytest.approx(one["score"], abs=1e-5)) for one in plain["items"]
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": [["a"]] * 17, "reasons": True}, "at most 16 people"),
        ({"inputs": [["a"]], "reasons": 1}, "true or false"),
        ({"inputs": [["a"], ["x"]], "reasons": True}, "is not in task.items"),
        ({"inputs": [["a"]], "why": True}, "only inputs and reasons are allowed"),
    ],
)
def test_reasons_that_cannot_be_given_are_refused(
    desk: Desk, recommender: Version, body: dict[str, object], said: str
) -> None:
    refused = desk.client(recommender).post("/v1/predict", json=body)
    assert refused.status_code == 400
    assert said in refused.json()["error"]["message"]


def test_a_word_s_reason_is_what_the_answer_loses_without_it(
    desk: Desk, classifier: Version, several: Version, scorer: Version, pairs: Version
) -> None:
    """Against the public way to ask about the text that is left, of any task with words."""

    def figure(version: Version, asked: str | list[str], whole: dict[str, Any]) -> float:
        (one,) = version.model.predict([asked])
        told = one.to_json()
        if "score" in told:
            return float(told["score"])
        shares = told["probabilities"]
        best = max(whole["probabilities"], key=whole["probabilities"].__getitem__)
        return math.log(shares[best] / (1 - shares[best]))

    left = ["patient has fever", "the has fever", "the patient fever", "the patient has"]
    for version in (classifier, several, scorer, pairs):
        is_pair = version is pairs
        asked: str | list[str] = (
            ["the patient has fever", "no fever"] if is_pair else "the patient has fever"
        )
        body = {"inputs": [asked], "reasons": True}
        (told,) = desk.client(version).post("/v1/predict", json=body).json()["predictions"]
        (plain,) = (
            desk.client(version).post("/v1/predict", json={"inputs": [asked]}).json()["predictions"]
        )
        assert {**told, "because": None} == {**plain, "because": None}
        spans = [(one["text"], *one["characters"]) for one in told["because"]]
        assert spans[:4] == [(0, 0, 3), (0, 4, 11), (0, 12, 15), (0, 16, 21)]
        assert spans[4:] == ([(1, 0, 2), (1, 3, 8)] if is_pair else [])
        whole = figure(version, asked, plain)
        for one, without in zip(told["because"], left, strict=False):
            other = figure(version, [without, "no fever"] if is_pair else without, plain)
            # Probabilities of float32, whose log-odds round at about 1e-6.
            assert one["moved"] == pytest.approx(whole - other, abs=1e-4)
        assert any(abs(one["moved"]) > 1e-3 for one in told["because"])


def test_of_many_words_neighbours_are_left_out_together(classifier: Version) -> None:
    text = " ".join(["fever"] * 200)
    (found,) = classifier.model.predict([text], reasons=True)
    assert isinstance(found, Classified)
    assert found.because is not None
    assert len(found.because) == MOST_PARTS
    assert (found.because[0].start, found.because[-1].end) == (0, len(text))
    # A single word cannot be left out, and what is no text is refused as without reasons.
    (alone,) = classifier.model.predict(["fever"], reasons=True)
    assert alone.to_json()["because"] == []
    with pytest.raises(DataError, match="input 2: empty"):
        classifier.model.predict(["fever", " "], reasons=True)


def test_reasons_of_other_tasks_and_of_many_texts_are_refused(
    desk: Desk, classifier: Version, tagger: Version
) -> None:
    for version, texts, said in (
        (tagger, ["a"], "token-classification has none"),
        (classifier, ["a"] * 5, "at most 4 texts"),
    ):
        refused = desk.client(version).post("/v1/predict", json={"inputs": texts, "reasons": True})
        assert refused.status_code == 400
        assert said in refused.json()["error"]["message"]
    with pytest.raises(UsageError, match="model explain"):
        tagger.model.predict(["a"], reasons=True)


def test_a_conversation_is_answered_whole_and_in_pieces(desk: Desk, chat: Version) -> None:
    client = desk.client(chat)
    body = {"model": chat.name, "messages": HELLO, "max_tokens": 10}
    whole = client.post("/v1/chat/completions", json=body).json()
    assert whole["object"] == "chat.completion"
    text = whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] <= 10
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    answer = client.post("/v1/chat/completions", json=streamed)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    parts = [json.loads(event) for event in events[:-1]]
    assert "".join(c["delta"].get("content", "") for p in parts for c in p["choices"]) == text
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert len({part["id"] for part in parts}) == 1


def test_a_stream_that_cannot_begin_has_a_status(desk: Desk, chat: Version) -> None:
    body = {"messages": HELLO, "max_tokens": 10**6, "stream": True}
    answer = desk.client(chat).post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "shorten the conversation" in answer.json()["error"]["message"]


def test_what_cannot_be_answered_has_one_message(desk: Desk, classifier: Version) -> None:
    client = desk.client(classifier)
    cases = [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b'{"inputs": [NaN]}', 400, "JSON"),
        (b"[" * 5000, 400, "JSON"),
        (b'{"inputs": ["  "]}', 400, "input 1: empty"),
        (b'{"inputs": ["a", 3]}', 400, "input 2: int given"),
        (b'{"inputs": ["a", ["b", "c"]]}', 400, "input 2: list given"),
        (b'{"inputs": ["' + b"x" * MOST_BYTES + b'"]}', 413, "bytes"),
    ]
    for content, status, told in cases:
        answer = client.post(
            "/v1/predict", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == status
        assert told in answer.json()["error"]["message"]
        assert "Traceback" not in answer.text
    assert client.post("/v1/chat/completions", json={"messages": HELLO}).status_code == 400
    for method, path, status, told in (
        ("GET", "/v1/predict", 405, "'GET' is not allowed"),
        ("PUT", "/healthz", 405, "'PUT' is not allowed"),
        ("GET", "/v2", 404, "there is no '/v2'"),
        ("POST", "/" + "x" * 5000, 404, "there is no '/xxx"),
    ):
        answer = client.request(method, path, headers={"content-type": "application/json"})
        assert answer.status_code == status
        assert told in answer.json()["error"]["message"]
        assert len(answer.text) < 500
    assert client.post("/v1/predict", json={"inputs": ["fever"]}).status_code == 200


def test_a_form_of_another_sites_page_asks_nothing(desk: Desk, classifier: Version) -> None:
    client = desk.client(classifier)
    body = b'{"inputs": ["fever"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/predict", content=body, headers={"content-type": kind})
        assert answer.status_code == 415
    elsewhere = desk.client(classifier, host="rebound.example")
    assert elsewhere.post("/v1/predict", json={"inputs": ["fever"]}).status_code == 421
    assert elsewhere.get("/").status_code == 421


def test_tokens_open_what_is_closed(desk: Desk, classifier: Version, tmp_path: Path) -> None:
    file = tmp_path / "callers.json"
    token = add_caller(file, "desk")
    client = desk.client(classifier, read_callers(file), host="models.example")
    bearer = {"authorization": f"Bearer {token}"}
    for path in ("/v1/models", "/metrics"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"authorization": "Bearer x"}).status_code == 401
        assert client.get(path, headers=bearer).status_code == 200
    body = {"inputs": ["fever"]}
    assert client.post("/v1/predict", json=body).status_code == 401
    assert client.post("/v1/predict", json=body, headers=bearer).status_code == 200
    for path in ("/healthz", "/", "/page.js", "/feedback.js", "/reasons.js", "/page.css"):
        assert client.get(path).status_code == 200


def test_a_caller_beyond_its_rate_is_told_when(desk: Desk, classifier: Version) -> None:
    client = desk.client(classifier, a_minute=2)
    body = {"inputs": ["fever"]}
    statuses = [client.post("/v1/predict", json=body).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert client.post("/v1/predict", json=body).headers["retry-after"] == "30"
    assert client.get("/v1/models").status_code == 200


def test_metrics_are_read_by_prometheus_and_name_no_caller(
    desk: Desk, classifier: Version, tmp_path: Path
) -> None:
    client = desk.client(classifier)
    client.post("/v1/predict", json={"inputs": ["fever"]})
    client.post("/v1/predict", json={"inputs": []})
    client.get("/anything/else")
    answer = client.get("/metrics")
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    counted = {
        (s.labels["route"], s.labels["status"]): s.value
        for s in samples
        if s.name == "cloister_requests_total"
    }
    assert counted == {
        ("/v1/predict", "200"): 1,
        ("/v1/predict", "400"): 1,
        ("other", "404"): 1,
    }
    assert any(s.name == "cloister_batch_requests_count" and s.value == 1 for s in samples)
    assert "fever" not in answer.text


def test_headers_keep_a_browser_from_guessing(desk: Desk, classifier: Version) -> None:
    answer = desk.client(classifier).get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_no_answer_in_time_is_a_status(desk: Desk, classifier: Version) -> None:
    answer = desk.client(classifier, seconds=0.0).post("/v1/predict", json={"inputs": ["fever"]})
    assert answer.status_code == 504
    assert "send less" in answer.json()["error"]["message"]
