"""Reads the bodies of requests: checks the size before parsing, and refuses unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from cloister.bounds import shortened
from cloister.data.chat_rows import turns_of
from cloister.data.records import ChatRecord, Message
from cloister.errors import DataError
from cloister.json_text import read_json
from cloister.service.reply_stream import Decoding
from cloister.serving.inputs import Input
from cloister.serving.word_reasons import REASONED

# Longest body: room for 256 texts of 4,000 characters.
MOST_BYTES = 2**20
# Most inputs of one request: about one batch, at a few dozen tokens each.
MOST_INPUTS = 256
# Most people whose reasons one request asks for: each takes a pass for each item that is read, at
# most 32 (`serving.reasons`), so this is about two batches.
MOST_REASONED = 16
# Most texts likewise: each takes a pass for each word, at most 64 (`serving.word_reasons`), so this
# is as much as `MOST_INPUTS` texts.
MOST_REASONED_TEXTS = 4
# OpenAI's own limits: the highest temperature, and the number of stop texts.
MOST_TEMPERATURE, MOST_STOPS = 2.0, 4
_USED = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
}
# Fields that never change a reply: they are accepted and ignored.
_UNUSED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# Fields that are not supported: accepted only with a value that changes nothing.
_NEUTRAL = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none",),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False),
}


class BodyError(Exception):
    """The body of a request is not valid.

    Args:
        status: The HTTP status to answer with: 400 or 413.
        message: What was given, and what is needed.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request) -> Any:
    """Reads a request's body as JSON, up to a limit of bytes.

    Raises:
        BodyError: The body is longer than `MOST_BYTES`, or not valid JSON.
        ClientDisconnect: The caller disconnected before the end of the body.
    """
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BYTES:
            raise BodyError(413, f"the body has more than {MOST_BYTES} bytes; send less at a time")
    try:
        return read_json(bytes(content), most_bytes=MOST_BYTES)
    except ValueError as error:
        raise BodyError(400, f"the body is not valid JSON ({error})") from error


def inputs_of(body: Any) -> list[Input]:
    """Returns the inputs of a request to `/v1/predict`: `{"inputs": [ … ], "reasons": true}`.

    Raises:
        BodyError: The body has another form, or too many inputs.
    """
    if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
        raise BodyError(400, 'an object {"inputs": [ … ]} is needed')
    if others := sorted(set(body) - {"inputs", "reasons"}):
        raise BodyError(
            400, f"{shortened(others[0])}: unknown field; only inputs and reasons are allowed"
        )
    inputs: list[Input] = body["inputs"]
    if not 1 <= len(inputs) <= MOST_INPUTS:
        raise BodyError(400, f"{len(inputs)} inputs given; a request must have 1 to {MOST_INPUTS}")
    return inputs


def wants_reasons(body: Mapping[str, Any], kind: str) -> bool:
    """Returns whether a request to `/v1/predict` asks why the model answers so.

    Args:
        body: Whose inputs `inputs_of` has read.
        kind: The served model's task.

    Raises:
        BodyError: It is not true or false, or asked of a task that has no reasons, or for too many
            inputs.
    """
    if not _flag(body, "reasons"):
        return False
    if kind not in REASONED:
        raise BodyError(400, f"reasons: {kind} has none here; leave it out")
    is_items = kind == "recommendation"
    most, unit = (MOST_REASONED, "people") if is_items else (MOST_REASONED_TEXTS, "texts")
    if len(body["inputs"]) > most:
        raise BodyError(400, f"reasons: given for at most {most} {unit} a request; send fewer")
    return True


def chat_of(body: Any) -> tuple[ChatRecord, Decoding, bool, bool]:
    """Reads a request in OpenAI's format for chat completions.

    Returns:
        The conversation; the settings of decoding; whether the reply is streamed; and whether a
        stream ends with the numbers of tokens.

    Raises:
        BodyError: The body has another form, or asks for something that is not supported.
    """
    if not isinstance(body, dict):
        raise BodyError(400, "an object with messages is needed")
    for name, neutral in _NEUTRAL.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise BodyError(400, f"{name}: this service has no {name}; leave it out")
    if others := sorted(set(body) - {*_USED, *_NEUTRAL, *_UNUSED}):
        raise BodyError(400, f"{shortened(others[0])}: unknown field; leave it out")
    options = body.get("stream_options")
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise BodyError(400, "stream_options: an object is needed")
    is_streamed = _flag(body, "stream")
    return (
        _chat(body.get("messages")),
        _decoding(body),
        is_streamed,
        _flag(options, "include_usage"),
    )


def _chat(messages: Any) -> ChatRecord:
    try:
        turns = turns_of(messages, "messages", "the request")
    except DataError as error:
        raise BodyError(400, str(error)) from error
    if turns[-1].role == "assistant":
        raise BodyError(400, "messages: the last turn is the assistant's; end with the user's")
    # A conversation's last turn is the reply, which is still empty.
    return ChatRecord((*turns, Message("assistant", "…")))


def _decoding(body: Mapping[str, Any]) -> Decoding:
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    stops = body.get("stop")
    stops = [] if stops is None else [stops] if isinstance(stops, str) else stops
    is_texts = isinstance(stops, list) and all(isinstance(s, str) and s for s in stops)
    if not is_texts or len(stops) > MOST_STOPS:
        raise BodyError(400, f"stop: at most {MOST_STOPS} texts are needed, none of them empty")
    return Decoding(
        most_tokens=None if most is None else _whole(most, "max_tokens", 1, 2**20),
        temperature=_number(body.get("temperature"), "temperature", MOST_TEMPERATURE, 0.0),
        top_p=_number(body.get("top_p"), "top_p", 1.0, 1.0),
        seed=None if body.get("seed") is None else _whole(body["seed"], "seed", 0, 2**63 - 1),
        stops=tuple(stops),
    )


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BodyError(400, f"{name}: true or false is needed")
    return bool(value)


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BodyError(400, f"{name}: a whole number from {least} to {most} is needed")
    return value


def _number(value: Any, name: str, most: float, absent: float) -> float:
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise BodyError(400, f"{name}: a number from 0 to {most:g} is needed")
    return float(value)
