"""A chat that answers from documents: what it cites, what it refuses, in OpenAI's form."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from cloister.cli.main import run as cli
from cloister.documents.frame import REFUSALS
from cloister.documents.index import save_index
from cloister.errors import UsageError
from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, Callers
from cloister.service.figures import Figures
from cloister.service.library import Library, open_library
from cloister.service.versions import Served, Version
from tests.support.browser import CHROMIUM, browser_tab
from tests.support.models import tiny_bert
from tests.support.web import on_a_port

KNOWN, UNKNOWN = "chest pain at rest", "knee swollen since monday"


@pytest.fixture(scope="module")
def address(talker: Version, library: Library) -> Iterator[str]:
    served = Served(lambda: talker)
    figures = Figures(lambda: 0)
    batcher = Batcher(served, 1000, 10, figures.batch)
    service = Service(served, batcher, figures, 60, library)
    with on_a_port(make_app(service, Callers(), CallerRates(None, time.monotonic))) as place:
        yield place
    batcher.close()


@pytest.fixture(scope="module")
def client(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def tokens(address: str) -> list[str]:
    text = httpx.get(f"{address}/metrics", timeout=60, trust_env=False).text
    return [line for line in text.splitlines() if "tokens" in line and not line.startswith("#")]


def test_openais_client_gets_the_passages_of_a_reply(client: OpenAI, talker: Version) -> None:
    whole = client.chat.completions.create(model=talker.name, messages=asked(KNOWN), max_tokens=6)
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    (passage,) = whole.model_extra["passages"]  # type: ignore[index]
    assert (passage["number"], passage["source"], passage["text"]) == (1, "heart.txt", KNOWN)
    assert passage["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert passage["cited"] == ("[1]" in (whole.choices[0].message.content or ""))
    parts = list(
        client.chat.completions.create(
            model=talker.name, messages=asked(KNOWN), max_tokens=6, stream=True
        )
    )
    text = "".join(c.delta.content or "" for part in parts for c in part.choices)
    assert text == whole.choices[0].message.content
    told = [extra["passages"] for part in parts if "passages" in (extra := part.model_extra or {})]
    assert told == [whole.model_extra["passages"]]  # type: ignore[index]


@pytest.mark.parametrize(("question", "speech"), [(UNKNOWN, "en"), ("膝盖肿了怎么办", "zh")])
def test_a_question_that_no_document_is_about_is_refused_without_a_token(
    question: str, speech: str, client: OpenAI, talker: Version, address: str
) -> None:
    before = tokens(address)
    for is_streamed in (False, True):
        found = client.chat.completions.create(
            model=talker.name, messages=asked(question), stream=is_streamed
        )
        if is_streamed:
            parts = list(found)
            said = "".join(c.delta.content or "" for part in parts for c in part.choices)
            assert [p.model_extra["passages"] for p in parts if "passages" in p.model_extra] == [[]]
        else:
            said = found.choices[0].message.content
            assert found.usage.total_tokens == 0
            assert found.model_extra["passages"] == []
        assert said == REFUSALS[speech]  # type: ignore[index]
    assert tokens(address) == before


def test_the_last_turn_of_the_user_is_looked_up(client: OpenAI, talker: Version) -> None:
    turns = [*asked(KNOWN), {"role": "assistant", "content": "rest"}, *asked(UNKNOWN)]
    found = client.chat.completions.create(model=talker.name, messages=turns)  # type: ignore[arg-type]
    assert found.model_extra["passages"] == []  # type: ignore[index]


def test_a_conversation_without_a_question_is_a_bad_request(address: str) -> None:
    for turns in ([{"role": "system", "content": "be kind"}], asked("   ")):
        answer = httpx.post(
            f"{address}/v1/chat/completions",
            json={"messages": turns},
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 400, answer.text


def test_health_says_how_many_documents_there_are(address: str) -> None:
    told = httpx.get(f"{address}/healthz", timeout=60, trust_env=False).json()
    assert told["documents"] == 2


def test_an_index_of_another_base_is_refused_before_anything_is_served(
    library: Library, tmp_path: Path
) -> None:
    save_index(library.index, tmp_path / "index")
    again = open_library(tmp_path / "index", None, None, 0.5)
    assert again.index.passages == library.index.passages
    other = tiny_bert(tmp_path / "other", seed=7)
    with pytest.raises(UsageError, match="is not that of the index"):
        open_library(tmp_path / "index", other, None, 0.5)


def test_documents_are_a_chats_alone(
    classifier: Version, tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cloister.tasks.config import TaskConfig
    from tests.support.released import exported

    labels = exported(tmp_path / "labels", bert, TaskConfig(labels=("x", "y"), max_length=12))
    assert cli(["serve", str(labels), "--documents", str(tmp_path), "--port", "0"]) == 2
    assert "given for sequence-classification" in capsys.readouterr().err
    assert cli(["serve", str(labels), "--least-score", "0.5", "--port", "0"]) == 2
    assert "without --documents" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_shows_what_a_reply_was_given(
    talker: Version, library: Library, tmp_path: Path
) -> None:
    served, figures = Served(lambda: talker), Figures(lambda: 0)
    batcher = Batcher(served, 1000, 10, figures.batch)
    hostile = replace(library.index.passages[0], text="<img src=x onerror=alert(1)>")
    index = replace(library.index, passages=[hostile, *library.index.passages[1:]])
    service = Service(served, batcher, figures, 60, replace(library, index=index))
    app = make_app(service, Callers(), CallerRates(None, time.monotonic))
    done = "document.querySelector('#answer .card') && !document.getElementById('send').disabled"
    with on_a_port(app) as place, browser_tab(tmp_path) as tab:
        tab.open(f"{place}/")
        tab.wait("document.activeElement.id === 'text' && about")
        for question in (KNOWN, UNKNOWN):
            tab.press(*question)
            tab.value("document.getElementById('send').focus()")
            tab.press("Enter")
            tab.wait(done)
            tab.value("document.getElementById('text').focus()")
        shown = str(tab.value("document.getElementById('answer').innerText"))
        assert "heart.txt" in shown
        assert hostile.text in shown
        assert REFUSALS["en"] in shown
        assert tab.value("document.images.length") == 0
        assert tab.value("document.querySelectorAll('.passages').length") == 1
        tab.look(390, 800, dark=True)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert tab.complaints == []
    batcher.close()
