"""The page's control of feedback, in a real browser, by keyboard alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.feedback.store import FeedbackStore
from cloister.service.library import Library
from cloister.service.versions import Version
from tests.service.test_feedback import House, kept
from tests.support.browser import CHROMIUM, Tab, browser_tab

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FOCUSED = "document.activeElement.id || document.activeElement.value"
HOSTILE = "<img src=x onerror=alert(1)> fever"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(FeedbackStore(tmp_path / "feedback.db", make=True))
    yield house
    house.close()


def asked(
    tab: Tab, house: House, version: Version, text: str, library: Library | None = None
) -> None:
    tab.open(f"{house.client(version, library=library).base_url}/")
    tab.wait("document.activeElement.id === 'text' && about")
    tab.press(*text, "Tab", "Enter")
    tab.wait("!document.getElementById('feedback').hidden && feedback.about")
    tab.wait("!document.getElementById('send').disabled")


def tab_to(tab: Tab, place: str) -> None:
    """Presses Tab until the control of this id or value has the focus."""
    for _ in range(40):
        if tab.value(FOCUSED) == place:
            return
        tab.press("Tab")
    raise AssertionError(f"{place} is not reached by Tab")


def sent(tab: Tab) -> str:
    """Consents, sends by Enter, and reads what the page says."""
    tab_to(tab, "person")
    tab.press(*"p7")
    tab_to(tab, "consent")
    tab.press(" ", "Tab", "Enter")
    tab.wait("document.querySelector('#feedback-said p')")
    return str(tab.value("document.getElementById('feedback-said').innerText"))


def test_a_person_corrects_a_label_without_a_mouse(
    tab: Tab, house: House, classifier: Version
) -> None:
    asked(tab, house, classifier, HOSTILE)
    said = tab.value("document.querySelector('#answer .label').innerText")
    tab_to(tab, "yes")
    assert tab.value("document.getElementById('feedback-more').hidden")
    tab.press(" ", "ArrowRight")  # the other of the two
    tab.wait("document.querySelector('#correction select')")
    tab.press("Tab", "z" if said != "z" else "y")
    assert "stored at this institution" in sent(tab)
    assert tab.value("document.activeElement.id") == "feedback-said"
    (found,) = kept(house)
    assert found["asked"] == HOSTILE
    assert found["answer"] == {"label": said}
    assert found["correction"] == {"label": "z" if said != "z" else "y"}
    assert (found["person"], found["is_right"]) == ("p7", False)
    assert tab.value("document.images.length") == 0
    tab.look(390, 800, dark=True)
    assert tab.value("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []


def test_a_person_says_that_an_answer_was_right_and_must_consent(
    tab: Tab, house: House, several: Version
) -> None:
    asked(tab, house, several, "fever")
    assert "keeps what you send as feedback" in tab.value("document.body.innerText")
    tab_to(tab, "yes")
    tab.press(" ")
    tab_to(tab, "person")
    tab.press(*"p7", "Enter")
    assert kept(house) == []
    assert tab.value("document.getElementById('consent').matches(':invalid')")
    tab_to(tab, "consent")
    tab.press(" ", "Tab", "Enter")
    tab.wait("document.querySelector('#feedback-said p[role=status]')")
    (found,) = kept(house)
    assert found["is_right"]
    assert found["correction"] == found["answer"]
    assert tab.complaints == []


def test_whose_text_it_is_must_be_said(tab: Tab, house: House, scorer: Version) -> None:
    asked(tab, house, scorer, "fever")
    tab_to(tab, "yes")
    tab.press(" ", "ArrowRight", "Tab", "ArrowUp")
    tab_to(tab, "consent")
    tab.press(" ", "Tab", "Enter")
    tab.wait("document.querySelector('#feedback-said p[role=alert]')")
    assert kept(house) == []
    assert tab.value(FOCUSED) == "person"
    tab.press(*"p8")
    tab_to(tab, "unit")
    tab.press(*"r3", "Enter")
    tab.wait("document.querySelector('#feedback-said p[role=status]')")
    (found,) = kept(house)
    assert (found["person"], found["unit"]) == ("p8", "r3")
    assert tab.complaints == []


def test_a_person_marks_an_entity_word_by_word(tab: Tab, house: House, tagger: Version) -> None:
    asked(tab, house, tagger, "the left knee hurts")
    found = tab.value("feedback.given.answer.entities.length")
    tab_to(tab, "yes")
    tab.press(" ", "ArrowRight", "Tab")
    for _ in range(found):  # what the model found is none
        tab.press("n", "Tab")
    tab.press("ArrowDown", "Tab", "ArrowDown", "ArrowDown", "Tab", "Tab", "Enter")
    assert "left knee" in tab.value("document.getElementById('correction').innerText")
    sent(tab)
    (kept_,) = kept(house)
    assert kept_["correction"] == {"entities": [{"type": "BODY", "words": [1, 3]}]}
    assert tab.complaints == []


def test_a_reply_from_documents_is_said_never_to_be_trained_on(
    tab: Tab, house: House, talker: Version, library: Library
) -> None:
    asked(tab, house, talker, "chest pain at rest", library)
    tab_to(tab, "yes")
    tab.press(" ", "ArrowRight")
    tab.wait("document.querySelector('#correction textarea')")
    assert "never trained on" in tab.value("document.getElementById('feedback').innerText")
    tab.value(
        "document.getElementById('language').value = 'zh'; "
        "document.getElementById('language').dispatchEvent(new Event('change'))"
    )
    assert "绝不用于训练" in tab.value("document.getElementById('feedback').innerText")
    tab.press("Tab", *"rest")
    assert "专人审核" in sent(tab)
    (found,) = kept(house)
    assert found["drew_on"] == "documents"
    assert "rest" in found["correction"]["reply"]
    assert tab.complaints == []
