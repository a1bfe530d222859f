"""Whatever a caller sends is read, or refused with one message."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.service.bodies import MOST_INPUTS, BodyError, chat_of, inputs_of
from tests.support.examples import tries

USER = [{"role": "user", "content": "hello"}]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "messages", "role", "content", "stop", "n", "stream", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=tries(400))
@given(ANY)
def test_anything_is_read_or_refused(body: Any) -> None:
    for read in (inputs_of, chat_of):
        with suppress(BodyError):  # anything else fails
            read(body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": []}, "0 inputs"),
        ({"inputs": ["x"] * (MOST_INPUTS + 1)}, f"{MOST_INPUTS + 1} inputs"),
        ({"inputs": "x"}, "inputs"),
        ({"inputs": ["x"], "text": "y"}, "text"),
        ({}, "inputs"),
    ],
)
def test_a_wrong_request_for_predictions_is_told_why(body: Any, told: str) -> None:
    with pytest.raises(BodyError, match=told):
        inputs_of(body)


@pytest.mark.parametrize(
    "more",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": [*USER, {"role": "assistant", "content": "hi"}]},
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"temperature": 3},
        {"temperature": True},
        {"temperature": "1"},
        {"top_p": -0.1},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"seed": -1},
        {"stop": ""},
        {"stop": ["a"] * 5},
        {"stream": "yes"},
        {"stream_options": []},
        {"best_of": 3},
    ],
)
def test_what_a_service_cannot_do_is_refused_by_name(more: dict[str, Any]) -> None:
    with pytest.raises(BodyError, match=next(iter(more))):
        chat_of({"messages": USER, **more})


def test_a_request_for_chat_is_read_whole() -> None:
    body = {
        "model": "m",
        "messages": USER,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "X",
        "user": "u",
        "n": 1,
        "tools": [],
        "frequency_penalty": 0.0,
        "response_format": None,
    }
    chat, how, is_streamed, with_usage = chat_of(body)
    assert [turn.role for turn in chat.messages] == ["user", "assistant"]
    assert (how.most_tokens, how.temperature, how.top_p, how.seed, how.stops) == (
        7,
        0.5,
        0.9,
        3,
        ("X",),
    )
    assert is_streamed
    assert with_usage
