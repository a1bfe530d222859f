"""The labelling page in a real browser: records labelled by keys alone, in both languages."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from cloister.labelling.app import make_label_app
from cloister.labelling.session import LabelSession
from tests.support.browser import CHROMIUM, Tab, browser_tab
from tests.support.labelled import HOSTILE, TEXTS, opened, records, rows_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
TOKEN = "a-token-of-23-characters"
TEXT = "document.getElementById('text').textContent"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@contextmanager
def served(session: LabelSession, **facts: str) -> Iterator[str]:
    names = {"source": "notes.jsonl", "file": "ann.jsonl", "annotator": "Ann", "next": "next"}
    agreement = [["raw", 0.75, 0.5, 1.0], ["Cohen's kappa", None, None, None]]
    app = make_label_app(session, TOKEN, names | facts, lambda: agreement)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)


def reach(tab: Tab, address: str, language: str = "en") -> None:
    tab.open("about:blank")
    tab.open(f"{address}#token={TOKEN}&lang={language}")
    tab.wait("!document.getElementById('record').hidden")


def shows(tab: Tab, at: int) -> None:
    tab.wait(f"document.getElementById('count').textContent.includes('record {at} of')")


def test_a_person_labels_by_keys_alone(tab: Tab, tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with opened(source, out, labels=("yes", "no")) as (session, _), served(session) as address:
        reach(tab, address)
        assert tab.value(TEXT) == TEXTS[0]
        assert tab.value("location.hash") == ""  # the token is out of sight
        tab.press("1")
        shows(tab, 2)
        # The record is shown as what it is; nothing of it became an element or ran.
        assert tab.value(TEXT) == HOSTILE
        assert tab.value("document.querySelectorAll('#text *').length") == 0
        assert "broken" not in tab.value("document.title")
        tab.press("s")
        shows(tab, 3)
        tab.press("2")
        shows(tab, 4)
        tab.press("u")
        shows(tab, 3)
        assert [row["label"] for row in rows_of(out)] == ["yes"]
        tab.press("1")
        shows(tab, 4)
        tab.press("ArrowLeft")
        shows(tab, 3)
        pressed = "document.querySelector('[aria-pressed=true]').textContent"
        assert tab.value(pressed) == "1yes"
        tab.press("ArrowRight")
        shows(tab, 4)
        for key, following in (("1", 5), ("2", 2)):
            tab.press(key)
            shows(tab, following)
        tab.press("2")
        tab.wait("!document.getElementById('agreement').hidden")
        ends = tab.value("document.getElementById('end').innerText")
        for words in ("Every record has an answer", "0.750", "0.500 – 1.000", "not defined"):
            assert words in ends
    assert [row["label"] for row in rows_of(out)] == ["yes", "yes", "yes", "no", "no"]
    assert tab.complaints == []


def test_words_are_marked_by_keys_alone(tab: Tab, tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", ["took aspirin 100 mg, 头痛", "none"])
    out = tmp_path / "ann.jsonl"
    asked = {"labels": ("DRUG", "SIGN"), "kind": "entities"}
    with opened(source, out, **asked) as (session, _), served(session) as address:
        reach(tab, address)
        assert tab.value(TEXT) == "took aspirin 100 mg, 头痛"
        tab.press("ArrowRight")
        tab.press("ArrowRight", "ArrowRight", shift=True)
        tab.press("1")
        tab.press("ArrowRight")
        tab.press("ArrowRight", shift=True)
        tab.press("2", "Enter")
        shows(tab, 2)
        tab.press("1", "Backspace", "Enter")
        tab.wait("!document.getElementById('end').hidden")
    assert [row["tags"] for row in rows_of(out)] == [
        ["O", "B-DRUG", "I-DRUG", "I-DRUG", "O", "B-SIGN", "I-SIGN"],
        ["O"],
    ]


def test_several_labels_and_scores_are_saved_by_enter(tab: Tab, tmp_path: Path) -> None:
    source = records(tmp_path / "notes.jsonl", ["first", "second"])
    out = tmp_path / "several.jsonl"
    asked = {"labels": ("a", "b", "c"), "kind": "several"}
    with opened(source, out, **asked) as (session, _), served(session) as address:
        reach(tab, address)
        tab.press("3", "1", "2", "2", "Enter")
        shows(tab, 2)
        tab.press("Enter")
        tab.wait("!document.getElementById('end').hidden")
    assert [row["labels"] for row in rows_of(out)] == [["a", "c"], []]
    out = tmp_path / "score.jsonl"
    asked = {"kind": "score", "lowest": 0.0, "highest": 5.0}
    with opened(source, out, **asked) as (session, _), served(session) as address:
        reach(tab, address)
        tab.press("9", "Enter")
        tab.wait("document.getElementById('trouble').textContent.includes('0 to 5')")
        assert rows_of(out) == []
        tab.press("Backspace", "3", ".", "5", "Enter")
        shows(tab, 2)
    assert [row["score"] for row in rows_of(out)] == [3.5]


def test_a_page_whose_program_is_gone_says_that_nothing_is_saved(tab: Tab, tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with opened(source, out, labels=("yes", "no")) as (session, _):
        with served(session) as address:
            reach(tab, address)
        tab.press("1")
        tab.wait("document.getElementById('trouble').textContent.includes('nothing is saved')")
        assert tab.value(TEXT) == TEXTS[0]
    assert rows_of(out) == []
    tab.complaints.clear()  # of the request that nobody answered


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_telephone_in_chinese(tab: Tab, tmp_path: Path, dark: bool) -> None:
    source, out = records(tmp_path / "notes.jsonl", ["x" * 300]), tmp_path / "ann.jsonl"
    labels = ("紧急", "常规", "w" * 60)
    with opened(source, out, labels=labels) as (session, _), served(session) as address:
        tab.look(390, 780, dark=dark)
        reach(tab, address, "zh")
        assert tab.value("document.documentElement.lang") == "zh-Hans"
        assert "仅供本机构使用" in tab.value("document.body.innerText")
        assert tab.value("document.documentElement.scrollWidth") <= 390
        ground = tab.value("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 200) is dark
        tab.press("1")
        tab.wait("!document.getElementById('end').hidden")
        assert "全部记录都已标注" in tab.value("document.body.innerText")
    assert rows_of(out)[0]["label"] == "紧急"
    assert tab.complaints == []
