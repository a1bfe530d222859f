"""Messages have the agreed fields and no others."""

import math

import pytest

from cloister.errors import AdapterFormatError
from cloister.protocol.exchange import RoundReply, RoundRequest, Status

REQUEST = RoundRequest("abc", 3, b"bytes")
REPLY = RoundReply("north", 3, Status.TRAINED, b"bytes", math.inf, "ab" * 32)


def test_messages_survive_their_fields() -> None:
    assert RoundRequest.from_fields(REQUEST.fields()) == REQUEST
    assert RoundReply.from_fields(REPLY.fields()) == REPLY


@pytest.mark.parametrize("change", [{"loss": 0.3}, {"num-examples": 7}])
def test_a_further_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AdapterFormatError, match="fields"):
        RoundReply.from_fields(REPLY.fields() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"round": True},
        {"round": "3"},
        {"delta": "text"},
        {"status": "fine"},
        {"epsilon": -1.0},
        {"epsilon": math.nan},
    ],
)
def test_a_value_out_of_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AdapterFormatError):
        RoundReply.from_fields(REPLY.fields() | change)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match="adapter"):
        RoundRequest.from_fields({"study": "abc", "round": 3})
