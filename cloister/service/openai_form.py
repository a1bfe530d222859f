"""Formats answers as OpenAI's chat completions API does, whole or as server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloister.service.reply_stream import Reply


@dataclass(frozen=True)
class Completion:
    """The fields that all parts of one answer share.

    Attributes:
        identifier: Id of the answer.
        created: Seconds since 1970.
        model: Name of the model.
        digest: Digest of the version that answered.
    """

    identifier: str
    created: int
    model: str
    digest: str

    def whole(self, reply: Reply, receipt: str | None = None) -> dict[str, Any]:
        """Returns the whole answer as one JSON object; with a receipt if feedback is taken."""
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.reason}
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": usage(reply), **_more(reply, receipt)}

    def piece(self, text: str, *, is_first: bool) -> bytes:
        """Returns one event of a stream, with a part of the reply."""
        delta = {"role": "assistant", "content": text} if is_first else {"content": text}
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def end(self, reply: Reply, receipt: str | None = None, *, with_usage: bool) -> bytes:
        """Returns the events that end a stream; with a receipt if feedback is taken."""
        last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reply.reason}
        events = self._event([last], **_more(reply, receipt))
        if with_usage:
            events += self._event([], usage=usage(reply))
        return events + b"data: [DONE]\n\n"

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._head("chat.completion.chunk"), "choices": choices, **more})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.digest,
        }


def _more(reply: Reply, receipt: str | None) -> dict[str, Any]:
    """Returns fields that OpenAI's format lacks: the passages in the prompt, the receipt."""
    found = None if reply.sources is None else [one.to_json() for one in reply.sources]
    more = {"passages": found, "receipt": receipt}
    return {name: value for name, value in more.items() if value is not None}


def usage(reply: Reply) -> dict[str, int]:
    """Returns the numbers of tokens of prompt and reply."""
    total = reply.prompt_tokens + reply.reply_tokens
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.reply_tokens,
        "total_tokens": total,
    }


def event(document: dict[str, Any]) -> bytes:
    """Formats one server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def failure(status: int, message: str) -> dict[str, Any]:
    """Formats an error in the way that OpenAI's clients expect."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
