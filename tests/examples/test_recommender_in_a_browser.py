"""The recommender as a user starts it, asked in a real browser; and ended by Ctrl-C."""

import signal
from pathlib import Path

import pytest

from cloister.feedback.store import FeedbackStore
from tests.examples.conftest import started
from tests.support.browser import CHROMIUM, browser_tab

pytestmark = [
    pytest.mark.nightly,  # minutes; test_recommender.py has all but the browser, on a tiny base
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def asked_in_a_browser(address: str, folder: Path) -> str:
    """Types what somebody has, says what they took, and looks at the page as on a telephone.

    Returns:
        The list, with its reasons.
    """
    with browser_tab(folder) as tab:
        tab.open(address)
        tab.wait("document.getElementById('prompt').textContent.startsWith('Ids of what')")
        tab.value("document.getElementById('text').focus()")
        tab.press(*"camping-1-green camping-2-green", "Tab", "Enter")
        tab.wait("!document.getElementById('feedback').hidden && feedback.about !== null")
        said = str(tab.value("document.getElementById('answer').innerText"))
        tab.value("document.getElementsByName('right')[1].click()")
        tab.value("document.querySelector('#correction input').value = 'camping-5-cheap'")
        tab.value("document.getElementById('person').focus()")
        tab.press(*"harbour-0001")
        tab.value("document.getElementById('consent').click()")
        tab.value("document.querySelector('#feedback-form button[type=submit]').click()")
        tab.wait("document.getElementById('feedback-said').innerText.startsWith('Thank you')")
        tab.look(390, 800, dark=True)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert tab.complaints == []
    return said


def test_a_recommender_of_a_tiny_base_is_asked_corrected_and_ended(
    encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "recommender"
    small = [str(out), "--base", str(encoder), "--people", "8", "--rounds", "2"]
    with started("recommender", *small) as (process, _, address):
        assert "camping-" in asked_in_a_browser(address, tmp_path / "browser")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "site feedback review" in process.stdout.read()
        assert process.wait(60) == 0
    kept = FeedbackStore(out / "feedback.db").all()
    assert {"item": "camping-5-cheap"} in [one.content.correction for one in kept]


def test_corrections_make_the_next_study_better_and_reasons_are_on_the_page(
    tmp_path: Path,
) -> None:
    with started("recommender", str(tmp_path / "recommender")) as (_, said, address):
        rows = {
            line[:48].strip(): [float(number) for number in line[48:].split()]
            for line in said.splitlines()
            if line.startswith(("last year's customers", "this year's customers"))
        }
        # Far from what one run gave (examples/recommender/README.md): noise differs from run to
        # run.
        before, after = rows["this year's customers, this year's study"]
        assert after > before + 0.05
        before, after = rows["last year's customers, this year's study"]
        assert after > before - 0.15
        before, after = rows["last year's customers, last year's study"]
        assert after > 0.3 > 0.1 > before
        assert "because of camping-" in asked_in_a_browser(address, tmp_path / "browser")
