"""A card's page has the card's content, and nothing that it quotes runs in a browser."""

import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.cli.main import run
from cloister.export.card import render
from cloister.export.card_page import BAR, SizeBar, card_page
from cloister.export.card_words import add_words
from tests.export.test_card import whole_card
from tests.support.examples import tries
from tests.support.ledgers import small_plan

HOSTILE = (
    "<script>a(1)</script> <img src=x onerror=a(1)> [x](javascript:a) [y](https://e.org/t) "
    "![z](https://e.org/p.png) <https://e.org> &lt;b&gt;"
)
# What would fetch or run something: an element with an address, a script, a handler.
ACTS = re.compile(
    r"<(script|img|iframe|a|link|object|form)\b|<\w[^>]*\son\w+=|<\w[^>]*url\(", re.IGNORECASE
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(render(whole_card(small_plan())))
    return tmp_path


def test_a_page_has_every_section_and_table_of_the_card(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    shown = card_page(card)
    for line in card.splitlines():
        if line.startswith("## "):
            assert f"<h2>{line[3:]}</h2>" in shown
    assert shown.count("<table>") > 0
    assert "base_model" not in shown  # the front matter is for programs
    assert not ACTS.search(shown)


def test_what_a_card_quotes_is_text_on_the_page(folder: Path) -> None:
    add_words(folder, {"use": HOSTILE}, {})
    shown = card_page((folder / "README.md").read_text())
    assert not ACTS.search(shown)
    assert "e.org/t" in unescape(shown)


@settings(max_examples=tries(100), deadline=None)
@given(text=st.text(alphabet="<>[]()!`*_#|&;\"'=/:ajscriptonx \n", max_size=120))
def test_no_card_makes_the_page_act(text: str) -> None:
    shown = card_page(f"# Model\n\n{text}\n", [SizeBar(text, 3, text)])
    assert not ACTS.search(shown.partition("</style>")[2])


def test_bars_are_as_long_as_sizes() -> None:
    shown = card_page("# Model\n", [SizeBar("whole", 200, "200 B"), SizeBar("half", 100, "100 B")])
    assert f'width="{BAR:.1f}"' in shown
    assert f'width="{BAR / 2:.1f}"' in shown


def test_the_command_writes_the_page_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "card.html"
    asked = ["model", "card", str(folder), "--html", str(page)]
    assert run(asked) == 0
    assert page.read_text() == card_page((folder / "README.md").read_text())
    assert run(asked) == 2
    assert "choose another name" in capsys.readouterr().err
