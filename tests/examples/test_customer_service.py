"""The customer service example answers with citations of a desk's pages, on tiny bases."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from cloister.data.records import ChatRecord, Message
from cloister.documents.encoder import open_encoder
from cloister.feedback.store import FeedbackStore
from cloister.recipe import read_recipe
from tests.examples.conftest import Opened, serving


@pytest.fixture(scope="module")
def example(opened: Opened) -> ModuleType:
    return opened("customer-service")


def test_equal_seeds_give_equal_dialogues_and_customers_write_once_or_twice(
    example: ModuleType,
) -> None:
    for desk in example.desks().values():
        past = list(example.dialogues(desk, 40))
        assert past == list(example.dialogues(desk, 40))
        assert past != list(example.dialogues(desk, 40, seed=1))
        counts = [sum(one.customer == name for one in past) for name in {p.customer for p in past}]
        assert len(counts) == 40
        assert set(counts) == {1, 2}


def test_a_fact_is_in_its_answer_and_on_one_page_of_its_desk(example: ModuleType) -> None:
    for desk in example.desks().values():
        for topic in desk.topics:
            (past,) = [one for one in example.dialogues(desk, 40) if one.topic == topic][:1]
            assert topic.fact in past.answer(1)
            assert [one.key for one in desk.topics if topic.fact in one.page] == [topic.key]


def test_a_record_has_its_page_under_the_number_that_its_answer_cites(
    example: ModuleType, bert: Path, tmp_path: Path
) -> None:
    desk = example.desks()["rail"]
    # A tiny encoder tells pages apart badly: all four nearest of six are shown, the rest left out.
    library = example.index_pages(desk, tmp_path / "rail", open_encoder(bert), -1.0)
    past = list(example.dialogues(desk, 12))
    rows = list(example.framed_rows(past, library, ("<|im_end|>",)))
    assert 0 < len(rows) < len(past)
    pages = {one.question: one.topic.page for one in past}
    for row in rows:
        asked, answered = (turn["content"] for turn in row["messages"])
        (line,) = [line for line in asked.splitlines() if line.startswith(answered)]
        assert line.endswith(pages[row["question"]])
        found = library.find(ChatRecord((Message("user", row["question"]),)))
        shown = [line for line in asked.splitlines() if line.startswith("[")]
        for passage, hit in zip(shown, found, strict=True):
            assert passage.endswith(hit.passage.text)
        assert asked.endswith(row["question"])
    again = example.framed_rows(past[1:], library, ("<|im_end|>",))
    assert list(again) == [row for row in rows if row["person"] != past[0].customer]


def test_all_of_it_runs_on_tiny_bases(
    example: ModuleType,
    talker: Path,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "desks"
    monkeypatch.setattr(example, "serving", serving)
    monkeypatch.setattr(example, "LONGEST", 320)  # a tiny tokenizer has no words of pages
    monkeypatch.setattr(example, "TESTED", 1)
    monkeypatch.setattr(example, "ASKED", {**example.ASKED, "rail": "Are bikes allowed?"})
    bases = ["--base", str(talker), "--encoder", str(bert), "--least", "-1"]
    example.main([str(out), *bases, "--customers", "4", "--rounds", "1", "--desk", "rail"])
    told = capsys.readouterr().out
    (promise,) = [line for line in told.splitlines() if line.startswith("ε = ")]
    for part in (
        "one person",
        "δ = 0.0001",
        "PLD",
        "added or removed",
        "whole plan",
        "against coordinator",
    ):
        assert part in promise
    assert "Are bikes allowed?" in told
    assert f"site feedback review {out / 'rail' / 'feedback.db'}" in told
    assert FeedbackStore(out / "rail" / "feedback.db").all() == []
    result = json.loads((out / "run" / "result.json").read_text())
    assert result["unit"] == "person"
    assert {site["name"] for site in result["sites"]} == {"bank", "rail", "power"}
    recipe = read_recipe(out / "study.toml")
    assert recipe.privacy.target_epsilon == 8.0
    trained = (out / "train.jsonl").read_text()
    assert example.desks()["library"].topics[0].page not in trained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--customers", "0"], "whole number of at least 1"),
        (["--desk", "circus"], "invalid choice: 'circus'"),
        (["--port", "70000"], "--port"),
        (["--least", "2"], "from -1 to 1"),
    ],
)
def test_wrong_options_get_one_message(
    example: ModuleType, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        example.main(words)
    assert ended.value.code == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert said in message
