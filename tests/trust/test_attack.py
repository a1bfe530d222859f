"""`cloister model attack` measures a finished run and refuses what does not apply."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cloister as cl
from cloister.cli.main import run
from cloister.data.records import (
    ChatRecord,
    LabelsRecord,
    Message,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.errors import RefusedError, UsageError
from cloister.serving.model import Model
from cloister.tasks.config import TaskConfig
from cloister.training.evaluation import evaluate
from cloister.trust.attack import measured
from cloister.trust.attack.disturbances import Disturbance
from cloister.trust.attack.measured import INJECTION, measure
from cloister.trust.opening import open_run
from cloister.trust.outcomes import outcomes
from tests.support.models import WORDS
from tests.support.released import exported

QUICK = ["typos", "upper-case", "negation", "distractor", INJECTION]


def test_a_report_measures_what_evaluate_measures(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [word for name in QUICK for word in ("--disturbance", name)]
    out = tmp_path / "attacked"
    assert run(["model", "attack", str(finished), *asked, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "distractor" in shown.out
    assert "prompt injection does not apply: it applies to conversations only" in shown.err
    document = json.loads((out / "attack.json").read_text())
    accuracy = json.loads((finished / "result.json").read_text())["test"]["accuracy"]
    assert document["undisturbed"]["value"] == pytest.approx(accuracy)
    rows = {row["name"]: row for row in document["disturbances"]}
    assert set(rows) == set(QUICK)
    # The tiny tokenizer knows no capitals: every word becomes unknown, and all texts one answer.
    assert rows["upper-case"]["records"] == 30
    assert rows["upper-case"]["difference"]["value"] == pytest.approx(
        rows["upper-case"]["disturbed"]["value"] - rows["upper-case"]["clean"]["value"]
    )
    assert rows["negation"]["disturbed"] is None
    assert 0 <= rows["negation"]["flipped"]["value"] <= 1
    words = (out / "words.txt").read_text()
    assert "upper-case" in words
    card = ["model", "card", str(finished), "--robustness", str(out / "words.txt")]
    assert run(card) == 0
    assert "> - upper-case" in (finished / "adapter" / "README.md").read_text()
    page = (out / "index.html").read_text()
    assert "<svg" in page
    assert "<script" not in page


def test_the_same_seed_gives_the_same_report(finished: Path, tmp_path: Path) -> None:
    found = [
        cl.attack_model(finished, tmp_path / name, disturbances=["typos"], most=10).document
        for name in ("one", "other")
    ]
    assert found[0] == found[1]
    assert found[0]["records"] == 10


def test_seeds_decide_what_is_changed(tmp_path: Path, bert: Path) -> None:
    config, _, _ = CASES["score"]
    model = open_run(exported(tmp_path / "adapter", bert, config)).model
    records: list[Record] = [ScoreRecord(f"severe {word} and fever", 2.0) for word in WORDS[:8]]
    errors = []
    for seed in (0, 1):
        (row,) = measure(model, records, ["typos"], seed)[1]
        assert row.disturbed is not None
        errors.append(row.disturbed.value)
    assert errors[0] != errors[1]  # other words are unknown to the tiny tokenizer


def test_private_records_are_refused_and_nothing_is_written(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = str(finished.parent / "study" / "train.jsonl")
    out = ["--out", str(tmp_path / "out")]
    assert run(["model", "attack", str(finished), "--test", train, *out]) == 4
    assert "the study's private records" in capsys.readouterr().err
    assert run(["model", "attack", str(finished), "--disturbance", "magic", *out]) == 2
    assert "magic given; choose from typos" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_private_texts_are_refused_with_other_labels_and_in_suites(
    finished: Path, tmp_path: Path
) -> None:
    train = finished.parent / "study" / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()][:4]
    others = {"cardiology": "dermatology", "dermatology": "orthopaedics"}
    other = tmp_path / "other.jsonl"
    lines = [{**row, "label": others.get(row["label"], "cardiology")} for row in rows]
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RefusedError, match="--test: these records"):
        cl.attack_model(finished, tmp_path / "out", test=other)
    for column in ("text", "disturbed"):
        suite = tmp_path / f"{column}.jsonl"
        lines = [
            {"text": "a", "disturbed": "b", "label": row["label"], column: row["text"]}
            for row in rows
        ]
        suite.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(RefusedError, match="--suite"):
            cl.attack_model(finished, tmp_path / "out", disturbances=[], suites=[suite])
    assert not (tmp_path / "out").exists()


def test_a_suite_is_scored_by_its_groups(finished: Path, tmp_path: Path) -> None:
    suite = tmp_path / "own.jsonl"
    rows = [("chest pain", "CHEST pain", "cardiology"), ("a rash", "a r4sh", "dermatology")]
    lines = [{"text": a, "disturbed": b, "label": c} for a, b, c in rows]
    suite.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = cl.attack_model(finished, tmp_path / "out", disturbances=[], suites=[suite])
    (row,) = done.rows
    model = cl.load(finished)
    texts = [[a for a, _, _ in rows], [b for _, b, _ in rows]]
    shares = [
        np.mean([p.label == c for p, (_, _, c) in zip(model.predict(t), rows, strict=True)])  # type: ignore[union-attr]
        for t in texts
    ]
    assert row.clean is not None
    (tmp_path / "more").mkdir()
    twin = shutil.copy(suite, tmp_path / "more")
    with pytest.raises(UsageError, match=r"two files have the name own\.jsonl"):
        cl.attack_model(finished, tmp_path / "twice", disturbances=[], suites=[suite, twin])
    assert row.disturbed is not None
    assert [row.clean.value, row.disturbed.value] == shares
    assert done.document["suites"]["own.jsonl"]["own"]["value"] == shares[1]


CASES: dict[str, tuple[TaskConfig, list[Record], str]] = {
    "labels": (
        TaskConfig(kind="multi-label-classification", labels=("x", "y"), max_length=16),
        [LabelsRecord("chest pain", ("x",)), LabelsRecord("severe rash", ("x", "y"))],
        "micro_f1",
    ),
    "score": (
        TaskConfig(kind="scoring", score_range=(0.0, 5.0), max_length=16),
        [ScoreRecord("chest pain", 2.0), ScoreRecord("a rash", 5.0)],
        "mae",
    ),
    "entities": (
        TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=16),
        [TokenRecord(("chest", "pain"), ("B-BODY", "O")), TokenRecord(("a", "rash"), ("O", "O"))],
        "f1",
    ),
    "reply": (
        TaskConfig(kind="causal-lm", max_length=24),
        [
            ChatRecord((Message("user", "chest pain"), Message("assistant", "a severe rash"))),
            ChatRecord((Message("user", "fever"), Message("assistant", "mild"))),
        ],
        "perplexity",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_score_is_the_tasks_own(name: str, tmp_path: Path, bert: Path, llama: Path) -> None:
    """Ratios of sums over records are what `cloister evaluate` gives."""
    config, records, metric = CASES[name]
    base = llama if name == "reply" else bert
    model: Model = open_run(exported(tmp_path / "adapter", base, config)).model
    workspace = model.workspace
    examples = workspace.encode(records)
    scores = evaluate(workspace.network, workspace.task, examples, model.max_tokens).metrics
    top, below = outcomes(model, records).parts.sum(axis=1)
    value = float(np.exp(top / below)) if name == "reply" else top / below
    assert value == pytest.approx(scores[metric], rel=1e-4)
    _, rows = measure(model, records, ["lower-case", "distractor", "negation"], 0)
    assert rows[0].why == "it finds nothing to change in any record"
    assert rows[1].records == 2
    assert rows[1].difference is not None
    assert "no one answer is expected" in rows[2].why


def test_prompt_injection_counts_replies_that_obey(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, records, _ = CASES["reply"]
    model = open_run(exported(tmp_path / "adapter", llama, config)).model
    (row,) = measure(model, records, [INJECTION], 0)[1]
    assert row.disturbed is not None
    assert row.disturbed.value == 0  # the tiny base has no such word
    monkeypatch.setattr("cloister.trust.attack.measured._reply", lambda m, t: f"{t[-1].content}.")
    (row,) = measure(model, records, [INJECTION], 0)[1]
    assert row.disturbed is not None
    assert row.clean is not None
    assert (row.clean.value, row.disturbed.value) == (0, 1)


def test_answers_that_change_are_counted_with_an_example(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TaskConfig(labels=("x", "y", "z"), max_length=16)
    model = open_run(exported(tmp_path / "adapter", bert, task)).model
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 14))) for _ in range(60)]
    answers = {text: one.label for text, one in zip(texts, model.predict(texts), strict=True)}  # type: ignore[union-attr]
    first = texts[0]
    second = next(text for text in texts if answers[text] != answers[first])
    way = Disturbance(lambda text, random: second if text == first else None, "swaps")
    monkeypatch.setitem(measured.DISTURBANCES, "swap", way)
    records: list[Record] = [TextRecord(t, answers[first]) for t in (second, first)]
    whole, (row,) = measure(model, records, ["swap"], 0)
    assert whole is not None
    assert (whole.value, row.records) == (0.5, 1)
    assert row.clean is not None
    assert row.disturbed is not None
    assert row.flipped is not None
    assert row.example is not None
    assert (row.clean.value, row.disturbed.value, row.flipped.value) == (1, 0, 1)
    example = row.example
    assert (example.before, example.after) == (first, second)
    assert (example.said, example.says) == (answers[first], answers[second])
