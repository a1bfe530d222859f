"""The page works in a real browser by keyboard: questions, answers and errors."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, Callers, add_caller, read_callers
from cloister.service.figures import Figures
from cloister.service.versions import Served, Version
from tests.support.browser import CHROMIUM, Tab, browser_tab
from tests.support.web import on_a_port

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
ANSWERED = "document.querySelector('#answer .card') && !document.getElementById('send').disabled"


@contextmanager
def page(version: Version, callers: Callers | None = None) -> Iterator[str]:
    served = Served(lambda: version)
    figures = Figures(lambda: 0)
    batcher = Batcher(served, 1000, 10, figures.batch)
    service = Service(served, batcher, figures, 60)
    app = make_app(service, callers or Callers(), CallerRates(None, time.monotonic))
    try:
        with on_a_port(app) as address:
            yield address
    finally:
        batcher.close()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


def ask(tab: Tab, text: str) -> str:
    """Types a text where the page waits for one, presses Tab and Enter, and reads the answer."""
    tab.value("document.getElementById('answer').replaceChildren()")
    tab.press(*text)
    tab.value("document.getElementById('send').focus()")
    tab.press("Enter")
    tab.wait(ANSWERED)
    return str(tab.value("document.getElementById('answer').innerText"))


def test_a_person_sees_labels_in_both_languages(tab: Tab, classifier: Version) -> None:
    with page(classifier) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        shown = ask(tab, "chest pain")
        (known,) = classifier.model.predict(["chest pain"])
        ranked = sorted(known.to_json()["probabilities"].items(), key=lambda pair: -pair[1])
        assert shown.split("\n")[0] == ranked[0][0]
        for label, share in ranked:
            assert label in shown
            assert f"{100 * share:.1f} %" in shown
        tab.value(
            "document.getElementById('language').value = 'zh'; "
            "document.getElementById('language').dispatchEvent(new Event('change'))"
        )
        assert tab.value("document.querySelector('h1').innerText") == "试用模型"
        assert tab.value("document.documentElement.lang") == "zh"
        assert ranked[0][0] in tab.value("document.getElementById('answer').innerText")
        tab.look(390, 800, dark=True)
        assert tab.value("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []


def test_a_person_sees_which_words_count(tab: Tab, classifier: Version) -> None:
    with page(classifier) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        ask(tab, "the patient has 😀 fever")
        tab.value("document.querySelector('.why').focus()")
        tab.press("Enter")
        tab.wait("document.activeElement.id === 'reasons'")
        (known,) = classifier.model.predict(["the patient has 😀 fever"], reasons=True)
        because = known.to_json()["because"]
        most = max(because, key=lambda one: abs(one["moved"]))
        word = "the patient has 😀 fever"[slice(*most["characters"])]
        marks = tab.value("[...document.querySelectorAll('mark.step3')].map((m) => m.innerText)")
        assert word in marks
        assert tab.value("document.querySelector('.reasons').textContent") == (
            "the patient has 😀 fever"
        )
        shown = str(tab.value("document.getElementById('reasons').innerText"))
        assert f"Most: {word} ({'+' if most['moved'] > 0 else '−'}" in shown
        # Another question takes the words away.
        tab.value("document.getElementById('text').focus()")
        assert "Which words count?" in ask(tab, "!")
        # An attempt that fails says so once, and can be repeated.
        tab.value("void (window.post = () => Promise.reject(new Error()))")
        for _ in range(2):
            tab.value("document.querySelector('.why').click()")
            tab.wait("!document.querySelector('.why').disabled")
        assert tab.value("document.querySelectorAll('.why ~ [role=alert]').length") == 1
    assert tab.complaints == []


def test_a_person_sees_several_labels_a_score_and_asks_about_two_texts(
    tab: Tab, several: Version, scorer: Version, pairs: Version, finder: Version
) -> None:
    with page(several) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        (known,) = several.model.predict(["chest pain"])
        first = ask(tab, "chest pain").split("\n")[0]
        assert first == (" · ".join(known.to_json()["labels"]) or "No label applies.")
    with page(scorer) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        (known,) = scorer.model.predict(["chest pain"])
        told = known.to_json()
        assert (
            ask(tab, "chest pain").split("\n")[0]
            == f"{told['score']:.2f} (grade {told['grade']:g})"
        )
    with page(pairs) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        tab.value("document.getElementById('second').value = 'no fever'")
        (known,) = pairs.model.predict([("chest pain", "no fever")])
        assert ask(tab, "chest pain").split("\n")[0] == known.to_json()["label"]
    with page(finder) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        (known,) = finder.model.predict(["chest pain"])
        shown = ask(tab, "chest pain")
        places = [shown.index(found["text"]) for found in known.to_json()["passages"]]
        assert places == sorted(places)
    assert tab.complaints == []


def test_markup_in_a_text_is_shown_as_text(tab: Tab, tagger: Version) -> None:
    with page(tagger) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        text = "<img src=x onerror=alert(1)> fever 😀 pain"
        shown = ask(tab, text)
        (known,) = tagger.model.predict([text])
        if known.to_json()["entities"]:
            assert "<img" in shown
        marks = tab.value("[...document.querySelectorAll('mark')].map((m) => m.firstChild.data)")
        assert marks == [one["text"] for one in known.to_json()["entities"]]
        assert tab.value("document.images.length") == 0
    assert tab.complaints == []


def test_a_conversation_goes_on_and_begins_anew(tab: Tab, chat: Version) -> None:
    with page(chat) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        ask(tab, "chest pain")
        assert tab.value("turns.length") == 2
        assert tab.value("turns[1].content.length") > 0
        assert tab.value("document.querySelectorAll('.turn').length") == 2
        tab.value("document.getElementById('fresh').click()")
        assert tab.value("document.querySelectorAll('.turn').length") == 0
    assert tab.complaints == []


def test_a_missing_token_is_asked_for_and_then_works(
    tab: Tab, classifier: Version, tmp_path: Path
) -> None:
    file = tmp_path / "callers.json"
    token = add_caller(file, "desk")
    with page(classifier, read_callers(file)) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
        assert tab.value("document.getElementById('token-row').hidden")
        assert "token" in ask(tab, "fever")
        assert not tab.value("document.getElementById('token-row').hidden")
        tab.value(f"document.getElementById('token').value = '{token}'")
        assert "%" in ask(tab, "")
    tab.complaints.clear()  # the browser reports the refused request


def test_a_service_that_is_gone_is_said(tab: Tab, classifier: Version) -> None:
    with page(classifier) as address:
        tab.open(f"{address}/")
        tab.wait("document.activeElement.id === 'text' && about")
    assert "does not answer" in ask(tab, "fever")
    tab.complaints.clear()
