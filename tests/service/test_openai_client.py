"""OpenAI's own client reads what the service answers."""

import time
from collections.abc import Iterator

import pytest
from openai import AuthenticationError, BadRequestError, OpenAI, RateLimitError

from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, add_caller, read_callers
from cloister.service.figures import Figures
from cloister.service.versions import Served, Version
from tests.support.web import on_a_port

A_MINUTE = 20


@pytest.fixture(scope="module")
def client(chat: Version, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    file = tmp_path_factory.mktemp("callers") / "callers.json"
    token = add_caller(file, "program")
    served = Served(lambda: chat)
    figures = Figures(lambda: 0)
    batcher = Batcher(served, 1000, 10, figures.batch)
    service = Service(served, batcher, figures, 60)
    began = time.monotonic()
    app = make_app(service, read_callers(file), CallerRates(A_MINUTE, lambda: began))
    with on_a_port(app) as address:
        yield OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0)
    batcher.close()


def test_it_lists_the_model(client: OpenAI, chat: Version) -> None:
    assert [model.id for model in client.models.list()] == [chat.name]


def test_it_gets_a_reply_and_the_same_in_pieces(client: OpenAI, chat: Version) -> None:
    asked = [{"role": "user", "content": "the patient has chest pain"}]
    whole = client.chat.completions.create(model=chat.name, messages=asked, max_tokens=8)
    stream = client.chat.completions.create(
        model=chat.name,
        messages=asked,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts = list(stream)
    text = "".join(c.delta.content or "" for part in parts for c in part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage == whole.usage
    assert whole.system_fingerprint == chat.digest


def test_it_knows_our_refusals(client: OpenAI, chat: Version) -> None:
    asked = [{"role": "user", "content": "fever"}]
    with pytest.raises(BadRequestError, match="this service has no tools"):
        client.chat.completions.create(
            model=chat.name,
            messages=asked,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )
    stranger = client.with_options(api_key="another")
    with pytest.raises(AuthenticationError, match="a token is needed"):
        stranger.models.list()


def test_it_knows_that_its_rate_is_used_up(client: OpenAI, chat: Version) -> None:

    def ask() -> None:
        asked = [{"role": "user", "content": "fever"}]
        for _ in range(A_MINUTE + 1):
            client.chat.completions.create(model=chat.name, messages=asked, max_tokens=1)

    with pytest.raises(RateLimitError, match="try again later"):
        ask()
