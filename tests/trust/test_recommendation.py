"""Reports of a recommender: items as pieces, hit rates under disturbed texts and by group."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cloister as cl
from cloister.cli.main import run
from cloister.data.records import ItemsRecord
from cloister.errors import UsageError
from cloister.tasks.config import TaskConfig
from cloister.tasks.recommendation import Recommendation
from cloister.training.evaluation import evaluate
from cloister.trust.attack.measured import measure
from cloister.trust.explain.readings import readings_of
from cloister.trust.items import example_of, in_texts, next_items
from cloister.trust.opening import Opened, open_run
from tests.support.released import exported

TEXTS = (
    "chest pain at rest",
    "severe rash",
    "knee swollen",
    "no fever",
    "mild headache",
    "itchy rash since monday",
    "the patient",
    "cough",
    "fever and cough",
    "knee pain",
    "severe headache",
    "mild rash",
    "swollen knee",
    "chest",
)
PERSONS = [ItemsRecord(tuple(f"i{(n * k + k) % 14}" for k in (1, 2, 3, 5))) for n in range(12)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    place = tmp_path_factory.mktemp("shop")
    items = place / "items.jsonl"
    rows = [{"item": f"i{n}", "text": text} for n, text in enumerate(TEXTS)]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    people = place / "test.jsonl"
    people.write_text(
        "".join(
            json.dumps({"items": list(one.items), "sex": "fm"[n % 2]}) + "\n"
            for n, one in enumerate(PERSONS)
        )
    )
    task = TaskConfig(kind="recommendation", items=str(items), max_length=32, last_items=3)
    return exported(place / "adapter", bert, task)


@pytest.fixture(scope="module")
def opened(shop: Path) -> Opened:
    return open_run(shop)


def task_of(opened: Opened) -> Recommendation:
    task = opened.model.workspace.task
    assert isinstance(task, Recommendation)
    return task


def test_hits_are_those_of_evaluate(opened: Opened) -> None:
    workspace, task = opened.model.workspace, task_of(opened)
    examples = workspace.encode(PERSONS)
    assert [example_of(task, one) for one in PERSONS] == examples
    scores = evaluate(workspace.network, task, examples, opened.model.max_tokens).metrics
    (hits, ones), first = next_items(opened.model, task, PERSONS)
    assert hits.sum() / ones.sum() == pytest.approx(scores["hit@10"])
    histories = [[task.catalogue.ids[place] for place in one.seen] for one in examples]
    ranked = opened.model.predict(histories)
    assert list(first) == [one.items[0].item for one in ranked]  # type: ignore[union-attr]


def test_disturbed_texts_change_what_is_read_and_not_what_is_ranked(opened: Opened) -> None:
    task = task_of(opened)
    person = in_texts(task, PERSONS[1])
    assert len(person.texts) == 3
    names = ["truncation", "distractor", "negation", "prompt injection"]
    whole, rows = measure(opened.model, PERSONS, names, 0)
    assert whole is not None
    assert [row.records > 0 for row in rows] == [True, True, False, False]
    for row in rows[:2]:
        assert row.clean is not None
        assert row.disturbed is not None
        assert row.flipped is not None
    assert "no one answer is expected" in rows[2].why


def test_each_item_is_a_piece_of_the_explanation(opened: Opened) -> None:
    model, task = opened.model, task_of(opened)
    given = ["i3", "i1", "i8", "i5"]  # the first is too old to be read
    (prediction,) = model.predict([given])
    (reading,) = readings_of(model, given, prediction)
    assert [piece.text for piece in reading.pieces] == [TEXTS[5], TEXTS[8], TEXTS[1]]
    example = task.history(given)
    with torch.no_grad():
        logits = model.workspace.network.logits(task.collate([example]))[0]
    new = [n for n in range(14) if n not in example.seen]
    best = prediction.items[0].item  # type: ignore[union-attr]
    share = logits[new].softmax(0)[new.index(task.places[best])]
    figure = reading.figures(reading.whole)
    assert torch.sigmoid(figure)[0] == pytest.approx(float(share), rel=1e-3)
    assert reading.answer.startswith(f"{best}: ")


def test_reports_are_written_for_a_recommender(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = str(shop.parent / "test.jsonl")
    texts = ["--text", "i3 i1 i8", "--text", "i2"]
    assert run(["model", "explain", str(shop), *texts, "--out", str(tmp_path / "why")]) == 0
    asked = ["--test", test, "--disturbance", "typos", "--out", str(tmp_path / "attacked")]
    assert run(["model", "attack", str(shop), *asked]) == 0
    assert "hit rate@10" in capsys.readouterr().out
    asked = ["--test", test, "--group", "sex", "--out", str(tmp_path / "groups")]
    assert run(["model", "bias", str(shop), *asked]) == 0
    found = json.loads((tmp_path / "groups" / "bias.json").read_text())["found"]
    parts, _ = next_items(open_run(shop).model, task_of(open_run(shop)), PERSONS)
    for group in found["groups"]:
        own = parts[0][np.arange(12) % 2 == "fm".index(group["name"])]
        assert group["score"]["value"] == pytest.approx(own.mean())
    why = json.loads((tmp_path / "why" / "explanations.json").read_text())
    assert [len(one["answers"]) for one in why["explanations"]] == [1, 1]
    assert why["explanations"][0]["edits"] is None


def test_edits_of_items_are_refused_by_name(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="may itself be recommended"):
        cl.explain_model(shop, tmp_path / "out", texts=["i3"], methods=["edits"])
