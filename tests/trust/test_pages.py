"""Reports show every text, label, group and name as text, and run no script."""

import json
from pathlib import Path

import pytest

import cloister as cl
from cloister.report_page import heading, heat, page, paragraph, table
from cloister.tasks.config import TaskConfig
from cloister.trust.attack.measured import AttackRow, ChangedAnswer
from cloister.trust.attack.page import attack_page
from cloister.trust.explain.page import _words
from cloister.trust.explain.summary import Word
from cloister.trust.intervals import Interval
from cloister.trust.outcomes import METRICS
from tests.support.released import exported

MARK = '<img src=x onerror="a(1)">'


def test_each_part_of_a_page_shows_a_text_as_text() -> None:
    parts = [
        heading(MARK),
        paragraph(MARK),
        paragraph(MARK, "soft"),
        table([MARK, MARK], [[MARK, MARK]], numbers=1),
        heat([MARK, "a"], [MARK, " "], [1.0, -1.0]),
        page(MARK, []),
    ]
    for part in parts:
        assert "&lt;img" in part
        assert "<img" not in part
        assert '"a(1)"' not in part


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """An adapter whose folder and labels are written in HTML."""
    task = TaskConfig(labels=("<img a>", "<img b>"), max_length=16)
    return exported(tmp_path_factory.mktemp("pages") / "<img>", bert, task)


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_no_report_holds_what_a_browser_would_run(adapter: Path, tmp_path: Path) -> None:
    texts = [f"{MARK} chest pain {n}" for n in range(4)]
    rows = [
        {"text": text, "label": f"<img {'ab'[n % 2]}>", "group": f"<img g{n % 2}>"}
        for n, text in enumerate(texts)
    ]
    test = written(tmp_path / "<img>.jsonl", rows)
    suite = written(
        tmp_path / "<img>suite.jsonl",
        [{"text": row["text"], "disturbed": MARK, "label": row["label"]} for row in rows],
    )
    cl.explain_model(adapter, tmp_path / "why", texts=texts)
    cl.attack_model(adapter, tmp_path / "attacked", test=test, suites=[suite])
    cl.measure_bias(adapter, tmp_path / "groups", test=test, group="group", against=adapter)
    for name in ("why", "attacked", "groups"):
        content = (tmp_path / name / "index.html").read_text()
        assert "&lt;img" in content
        assert "<img" not in content, name
        assert "<script" not in content


def test_examples_and_words_are_text_too() -> None:
    example = ChangedAnswer(MARK, MARK, MARK, MARK)
    row = AttackRow(MARK, MARK, 1, example=example)
    idle = AttackRow(MARK, MARK, 0, why=MARK)
    metric = METRICS["sequence-classification"]
    shown = attack_page("a", "b", metric, None, [row, idle], {MARK: {MARK: Interval(1, 0, 1)}})
    for content in (shown, _words(MARK, [Word(MARK, 1.0, 1)])):
        assert "&lt;img" in content
        assert "<img" not in content
