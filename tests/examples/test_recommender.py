"""The recommender: its customers, its two years, its corrections and its page, on a tiny base."""

import json
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from cloister.feedback.store import FeedbackStore
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.server.run_directory import RunDirectory
from tests.examples.conftest import Opened, serving


@pytest.fixture(scope="module")
def example(opened: Opened) -> ModuleType:
    return opened("recommender")


def test_last_year_nobody_has_what_is_new_and_this_year_it_follows_the_second(
    example: ModuleType,
) -> None:
    from people import hobbies

    made = example.customers("harbour", 80)
    assert made == example.customers("harbour", 80)
    assert made != example.customers("harbour", 80, seed=1)
    assert len({one.person for one in made}) == 80
    known = {row["item"] for row in example.catalogue()}
    texts = [row["text"] for row in example.catalogue()]
    assert len(known) == len(set(texts)) == 8 * 6 * 4
    for one in made:
        assert 3 <= len(one.items) == len(set(one.items))
        assert not any("-new-" in item for item in one.items)
        assert set(one.items) <= known
    later = example.customers("harbour", 80, this_year=True)
    assert any("-new-" in item for one in later for item in one.items)
    assert {one.person for one in made}.isdisjoint(one.person for one in later)
    row = hobbies()[0].row(this_year=True)
    assert row == ("1", "2", "new", "3", "4", "5")
    for one, took in example.returning(made):
        hobby, place, style = one.items[-1].split("-")
        assert took == f"{hobby}-{row[row.index(place) + 1]}-{style}"


def test_all_of_it_runs_on_a_tiny_base(
    example: ModuleType,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "recommender"
    monkeypatch.setattr(example, "serving", serving)
    monkeypatch.setattr(example, "TESTED", 10)
    monkeypatch.setattr(example, "wait_for_ctrl_c", lambda: try_service(capsys))
    small = ["--base", str(encoder), "--people", "8", "--rounds", "2"]
    example.main([str(out), "--serve", *small])
    said = capsys.readouterr().out
    assert "Models and ledgers are in" in said
    kept = FeedbackStore(out / "feedback.db").all()
    assert len(kept) == 9  # eight customers, and one on the page
    last, this = (json.loads((out / name / "result.json").read_text()) for name in YEARS)
    assert [site["promise"]["epsilon"] for site in this["sites"]] == [6.2] * 3
    assert last["sites"][0]["promise"]["epsilon"] == pytest.approx(4, abs=0.01)
    assert this["began"]["run"] == "last-year"
    assert set(this["old_test"]) == {"before", "after"}
    assert this["census"]["records"] == 2 * last["census"]["records"] == 48  # old rows are replayed
    assert this["census"]["units"] == last["census"]["units"] == 24  # of the same people
    ledger = RunDirectory(out / "this-year").ledger("harbour")
    assert verify(LedgerFile(ledger).entries(), "harbour").charges == 4
    rows = [json.loads(line) for line in (out / "harbour-2.jsonl").read_text().splitlines()]
    assert rows[0]["items"][-1] in {took for _, took in example.returning(harbour(example))}


YEARS = ("last-year", "this-year")


def harbour(example: ModuleType) -> list[object]:
    found: list[object] = example.customers("harbour", 8)
    return found


def try_service(capsys: pytest.CaptureFixture[str]) -> None:
    """What a browser asks of the service, and what it sends."""
    said = capsys.readouterr().out
    assert "last year's study: ε = 4.00 for one person" in said
    assert "both years together: ε = 6.20 for one person" in said
    assert "8 corrections, each with consent" in said
    assert said.count("against coordinator") == 2
    address = said.partition("The page of harbour: ")[2].split()[0]
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        body = {"inputs": ["camping-1-green camping-2-green"], "reasons": True}
        told = client.post("/v1/predict", json=body).json()
        (answer,), (receipt,) = told["predictions"], told["receipts"]
        reasons = {one["because"]["item"] for one in answer["items"] if "because" in one}
        assert reasons <= {"camping-1-green", "camping-2-green"}
        sent = {
            "receipt": receipt,
            "input": body["inputs"][0],
            "answer": answer,
            "is_right": False,
            "correction": {"item": "camping-5-cheap"},
            "person": "harbour-0001",
        }
        assert client.post("/v1/feedback", json=sent).status_code == 400  # without consent
        assert client.post("/v1/feedback", json={**sent, "consent": True}).status_code == 201


def test_wrong_options_get_one_message(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--people", "0"], ["--rounds", "many"], ["--port", "x"]):
        with pytest.raises(SystemExit) as ended:
            example.main(words)
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert words[0] in line
