"""The second example system: its answers, its rule, its page's application, all on a tiny base."""

import json
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from cloister.feedback.store import FeedbackStore
from tests.examples.conftest import Opened, serving
from tests.support.web import cut_off


@pytest.fixture(scope="module")
def example(opened: Opened) -> ModuleType:
    return opened("tutor")


def test_a_score_counts_the_ideas_and_the_material_is_of_the_first_that_is_missing(
    example: ModuleType,
) -> None:
    found = list(example.answers("ashgrove", 60))
    assert found == list(example.answers("ashgrove", 60))
    assert found != list(example.answers("ashgrove", 60, seed=1))
    assert {one.score for one in found} == {0, 1, 2, 3}
    for one in found:
        there = [any(said in one.text for said in idea.said) for idea in one.question.ideas]
        assert one.score == sum(there)
        first = next((i for i, is_there in enumerate(there) if not is_there), None)
        wanted = (
            None if first is None else example.material_id(one.question, one.question.ideas[first])
        )
        assert one.material == wanted


def test_the_public_class_has_words_of_its_own(example: ModuleType) -> None:
    schools = [one.text for school in example.SCHOOLS for one in example.answers(school, 20)]
    for question in example.questions():
        for idea in question.ideas:
            assert len(set(idea.said)) == 5
            assert not any(idea.said[-1] in text for text in schools)
    public = " ".join(one.text for one in example.answers(example.PUBLIC, 20))
    assert example.questions()[0].ideas[0].said[-1] in public


def test_the_rule_of_hints(example: ModuleType) -> None:
    from tutoring import advice

    question = example.questions()[0]
    ids = [example.material_id(question, idea) for idea in question.ideas]
    full = advice(question, 3, ids)
    assert full.material is None
    some = advice(question, 2, ["moon.lit", ids[1], ids[0]])
    assert (some.material, some.hint) == (question.ideas[1], question.ideas[1].hint)
    none = advice(question, 0, [ids[2]])
    assert (none.material, none.hint) == (question.ideas[2], question.nudge)
    assert advice(question, 1, ["moon.lit"]).material == question.ideas[0]


def test_all_of_it_runs_on_a_tiny_base(
    example: ModuleType,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tutor"
    monkeypatch.setattr(example, "serving", serving)
    monkeypatch.setattr(example, "TESTED", 10)
    monkeypatch.setattr(example, "wait_for_ctrl_c", lambda: try_page(example, capsys))
    small = ["--base", str(encoder), "--pupils", "6", "--rounds", "1"]
    example.main([str(out), "--serve", *small])
    told = capsys.readouterr().out
    assert "Models and ledgers are in" in told
    (kept,) = FeedbackStore(out / "feedback.db").all()
    assert kept.content.person == "p7"
    assert kept.content.correction == {"score": 3.0}
    for study in example.STUDIES:
        result = json.loads((out / study / "result.json").read_text())
        assert (result["unit"], len(result["sites"])) == ("person", 4)
    with pytest.raises(SystemExit):
        example.main([str(out)])
    assert "is there already" in capsys.readouterr().err


def try_page(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """What a browser asks of the application, and what it must not be given."""
    told = capsys.readouterr().out
    assert told.count("ε = 4.00 for one person") == 2
    assert "together ε ≤ 8.00, δ ≤ 2e-05" in told
    assert told.count("against coordinator") == 2
    address = told.partition("The tutor's page: ")[2].split()[0]
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
        assert len(client.get("/questions").json()) == len(example.questions())
        advised = client.post("/advice", json={"question": "moon", "answer": "chest pain"}).json()
        given = advised["given"]
        assert advised["grade"] == round(given["answer"]["grade"])
        if advised["grade"] < 3:
            titles = {
                idea.title for q in example.questions() for idea in q.ideas if q.key == "moon"
            }
            assert advised["material"]["title"] in titles
        for body, said in (
            ({"question": "moon", "answer": " "}, "write something"),
            ({"question": "moon", "answer": "a" * 4001}, "4000 characters"),
            ({"question": "sun", "answer": "a"}, "not one of the course"),
            ([], "an object"),
        ):
            refused = client.post("/advice", json=body)
            assert refused.status_code == 400
            assert said in refused.json()["error"]["message"]
        assert client.post("/advice", content=b"{}").status_code == 400
        assert (
            client.post("/advice", json={"question": "moon", "answer": "é" * 70000}).status_code
            == 400
        )
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        said = {**given, "is_right": False, "correction": {"score": 3}, "person": "p7"}
        if given["answer"]["grade"] == 3:
            said["is_right"] = True
            said.pop("correction")
        assert client.post("/feedback", json=said).status_code == 400  # without consent
        assert client.post("/feedback", json={**said, "consent": True}).status_code == 201


def test_wrong_options_get_one_message(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--pupils", "-3"], ["--rounds", "many"], ["--port", "x"]):
        with pytest.raises(SystemExit) as ended:
            example.main(words)
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert words[0] in line


def test_a_request_that_is_cut_off_is_no_error(example: ModuleType) -> None:
    app = example.make_app(example.Tutor("http://127.0.0.1:1", "http://127.0.0.1:1"))
    for path in ("/advice", "/feedback"):
        assert cut_off(app, path) == 499
