"""The news monitor: its news, its stream, its daily report and its services, on a tiny base."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.examples.conftest import Opened, serving


@pytest.fixture(scope="module")
def example(opened: Opened) -> ModuleType:
    return opened("finance-monitor")


def test_news_say_what_their_labels_say_and_the_agency_has_words_of_its_own(
    example: ModuleType,
) -> None:
    made = example.filed("alder", 90)
    assert made == example.filed("alder", 90)
    assert made != example.filed("alder", 90, seed=1)
    assert {one.sentiment for one in made} == set(example.SENTIMENTS)
    assert {one.topic for one in made} == set(example.topics())
    assert all(one.company in one.text for one in made)
    from news import _words

    for topics in _words()["topics"].values():
        for wordings in topics.values():
            assert len(set(wordings)) == 5
            assert not any(wordings[-1] in one.text for one in made)
    agency = example.filed(example.PUBLIC, 90)
    own = [w[-1] for t in _words()["topics"].values() for w in t.values()]
    assert all(any(said in one.text for said in own) for one in agency)


def test_the_stream_surges_and_drifts_when_it_says_so(example: ModuleType) -> None:
    from news import OTHER, surges

    news = list(example.stream())
    assert news == sorted(news, key=lambda one: one.at)
    first, last = surges()
    for surge in (first, last):
        during = [one for one in news if surge.first <= one.at < surge.last]
        bad = [one for one in during if one.company == surge.company and one.topic == surge.topic]
        assert Counter(one.sentiment for one in bad)["negative"] >= 6 * 8
    other = example.BEGINS + OTHER * example.DAY
    calm, late = (
        [one.sentiment for one in news if (one.at >= other) is is_late] for is_late in (False, True)
    )
    assert late.count("positive") / len(late) > 1.5 * calm.count("positive") / len(calm)
    assert [one["kind"] for one in example.happened()] == ["drift", "surge", "drift"]


ROW = {"label": "negative", "probabilities": {"negative": 0.9}, "topic": "courts"}


def told(at: str, company: str, **other: Any) -> dict[str, Any]:
    return {"at": at, "company": company, "text": f"{company} <b>", **ROW, **other}


REPORT: dict[str, Any] = {
    "drift": {
        "stands": ["label"],
        "last": [{"figures": [{"feature": "label", "psi": 0.31, "drifts": True}]}],
    },
    "surges": {"stands": []},
    "alerts": [
        {"at": "2026-01-17T23:00:00+00:00", "message": "the day before"},
        {"at": "2026-01-18T10:00:00+00:00", "message": "company=Halden surges"},
    ],
}


def test_a_daily_report_is_of_its_day(example: ModuleType) -> None:
    rows = [
        told("2026-01-17T23:59:59+00:00", "Norvik"),
        told("2026-01-18T01:00:00+00:00", "Halden"),
        told("2026-01-18T02:00:00+00:00", "Tessaro", label="neutral", topic="staff"),
        told("2026-01-18T03:00:00+00:00", "Tessaro", probabilities={"negative": 0.95}),
    ]
    found = example.daily(REPORT, rows, "2026-01-18")
    assert [(c.company, c.news, c.negative, c.topic) for c in found.companies] == [
        ("Halden", 1, 1, "courts"),
        ("Tessaro", 2, 1, "courts"),
    ]
    assert [name for name, _, _ in found.headlines] == ["Tessaro", "Halden"]
    text = example.markdown(found)
    assert (
        "3 pieces of news. At the end of the day: label drifts. Drifted: label (PSI 0.31)" in text
    )
    assert "- 10:00 company=Halden surges" in text
    assert "the day before" not in text
    assert "| Halden | 1 | 1 | courts |" in text
    page = example.html(found)
    assert "Halden &lt;b&gt;" in page
    assert "<b>" not in page
    empty = example.daily(REPORT, [], "2026-02-01")
    assert "None." in example.markdown(empty)
    assert "0 pieces of news" in example.html(empty)


def test_all_of_it_runs_on_a_tiny_base(
    example: ModuleType,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "monitor"

    @contextmanager
    def watched(folder: Path) -> Iterator[str]:
        yield f"{folder}"  # a process of its own: the nightly test has it

    monkeypatch.setattr(example, "serving", serving)
    monkeypatch.setattr(example, "watched", watched)
    monkeypatch.setattr(example, "TESTED", 10)
    for module in (example, sys.modules["news"]):  # fewer, in windows of as many rows as may be
        monkeypatch.setattr(module, "AN_HOUR", 3)
    monkeypatch.setattr(example, "wait_for_ctrl_c", lambda: try_service(capsys))
    small = ["--base", str(encoder), "--records", "8", "--rounds", "1"]
    example.main([str(out), "--serve", *small])
    assert "daily reports are in" in capsys.readouterr().out
    from news import companies

    report = json.loads((out / "news.watch" / "report.json").read_text())
    rows = (out / "predictions.jsonl").read_text().splitlines()
    assert report["rows"] == len(rows) == len(list(example.stream()))
    assert report["refused"]["lines"] == 0
    assert set(report["surges"]["topics"]) <= {f"company={name}" for name in companies()}
    for day in ("2026-01-16", "2026-01-17", "2026-01-18"):
        assert (out / f"daily-{day}.md").read_text().startswith(f"# News of {day}")
        assert f"<h1>News of {day}</h1>" in (out / f"daily-{day}.html").read_text()


def try_service(capsys: pytest.CaptureFixture[str]) -> None:
    """What a browser asks of the sentiment service."""
    said = capsys.readouterr().out
    assert said.count("ε = 4.00 for one record") == 2
    assert "together ε ≤ 8.00, δ ≤ 2e-05" in said
    assert "false alarms" in said
    address = said.partition("The sentiment page: ")[2].split()[0]
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        answer = client.post("/v1/predict", json={"inputs": ["Norvik posted a loss."]}).json()
        assert set(answer["predictions"][0]["probabilities"]) == {"negative", "neutral", "positive"}


def test_wrong_options_get_one_message(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--records", "0"], ["--rounds", "many"], ["--port", "x"]):
        with pytest.raises(SystemExit) as ended:
            example.main(words)
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert words[0] in line
