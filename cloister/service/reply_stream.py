"""Decodes the reply of a chat model and hands it out piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from cloister.data.records import ChatRecord
from cloister.documents.frame import Cited
from cloister.models.limits import limits_of
from cloister.serving.model import Model
from cloister.tasks.chat import CausalChat
from cloister.training.generation import ignores_padding, left_padded, reply_ends

# Longest reply if the caller states no length, in tokens: two or three paragraphs.
REPLY_TOKENS = 256
# Below this, logits divided by the temperature could overflow float32 (largest: 3.4e38). Sampling
# at much higher temperatures already gives the likeliest token only.
LEAST_TEMPERATURE = 1e-30
# What a tokenizer decodes an incomplete character to (U+FFFD).
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Decoding:
    """The settings of decoding.

    Attributes:
        most_tokens: Longest reply; None: `REPLY_TOKENS`, or less if there is no room for as many.
        temperature: Divides the logits before sampling. Below `LEAST_TEMPERATURE`, 0 included,
            nothing is sampled: each token is the most probable one.
        top_p: Sample only from the likeliest tokens that together have this probability.
        seed: Seed of the sampling; None: taken from the operating system.
        stops: The reply ends before the first of these texts.
    """

    most_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A complete reply, why it ended, and its numbers of tokens.

    Attributes:
        text: Its text.
        reason: `stop`: the model ended it; `length`: it reached the limit, or the caller left.
        prompt_tokens: Number of tokens of the prompt.
        reply_tokens: Number of tokens that were decoded.
        sources: The passages in the prompt; empty if none was near enough; None if the service
            has no documents.
    """

    text: str
    reason: Literal["stop", "length"]
    prompt_tokens: int
    reply_tokens: int
    sources: tuple[Cited, ...] | None = None


class TooLongError(Exception):
    """The conversation leaves no room for a reply; the message states both limits."""


def prompt_of(model: Model, chat: ChatRecord) -> tuple[int, ...]:
    """Returns the token ids of a conversation. It is never cut: half of it could mean the opposite.

    Raises:
        MisfitError: The base's template cannot render the conversation.
    """
    task = model.workspace.task
    assert isinstance(task, CausalChat)
    return task.whole_prompt(chat) or (task.pad_id,)


def room_for(model: Model, prompt: tuple[int, ...], how: Decoding) -> int:
    """Returns the largest number of tokens that a reply may have.

    Raises:
        TooLongError: Prompt and reply do not fit the base's positions.
    """
    positions = limits_of(model.workspace.network.base).positions
    wanted = how.most_tokens
    if positions is None:
        return REPLY_TOKENS if wanted is None else wanted
    room = positions - len(prompt)
    if room < 1 or (wanted is not None and wanted > room):
        asked = "" if wanted is None else f" and the reply may have {wanted}"
        raise TooLongError(
            f"the conversation has {len(prompt)} tokens{asked}; the model reads {positions} in "
            "all: shorten the conversation, or lower max_tokens"
        )
    return min(REPLY_TOKENS, room) if wanted is None else wanted


@dataclass(frozen=True)
class AskedReply:
    """A reply that is to be decoded.

    Attributes:
        prompt: Token ids, as from `prompt_of`.
        how: The settings of decoding.
        give: Called with each piece of text; together they are the reply. Text is held back while
            it may be part of an incomplete character or the beginning of a stop text.
        is_left: Returns whether the caller has left; decoding then ends with the next token.
    """

    prompt: tuple[int, ...]
    how: Decoding
    give: Callable[[str], None]
    is_left: Callable[[], bool]


def can_join(model: Model, how: Decoding) -> bool:
    """Returns whether a reply may be decoded together with others.

    A sampled reply is decoded alone, because its seed determines torch's global generators.
    """
    return how.temperature < LEAST_TEMPERATURE and ignores_padding(model.workspace.network)


def decode(model: Model, asked: Sequence[AskedReply]) -> list[Reply]:
    """Decodes replies together and hands out their texts while they are decoded.

    Args:
        model: A chat model.
        asked: One reply, or several that all `can_join`.

    Returns:
        The replies, in their order.

    Raises:
        TooLongError: A prompt and its reply do not fit the base's positions.

    Guarantees:
        A reply ends at its own end, limit and stop texts, whatever the others do.
    """
    network, task = model.workspace.network, model.workspace.task
    assert isinstance(task, CausalChat)
    rows = [_Row(model, one) for one in asked]
    ids, mask = left_padded([one.prompt for one in asked], task.pad_id, network.device)
    how = asked[0].how
    chosen: dict[str, Any] = {"do_sample": False}
    if how.temperature >= LEAST_TEMPERATURE:
        chosen = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    ends, _ = reply_ends(network, task)
    # Sampling uses torch's global generators: restore their state afterwards. Only this thread
    # computes, so nothing else draws from them meanwhile.
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(how.seed) if how.seed is not None else torch.seed()
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(row.most for row in rows),
            pad_token_id=task.pad_id,
            eos_token_id=list(ends) or None,
            stopping_criteria=StoppingCriteriaList([_Following(rows, ids.shape[1])]),
            **chosen,
        )
    decoded = output[:, ids.shape[1] :].tolist()
    return [row.finish(tokens) for row, tokens in zip(rows, decoded, strict=True)]


class _Following(StoppingCriteria):
    """Hands out the texts of all rows during decoding, and stops each row at its own end."""

    def __init__(self, rows: Sequence[_Row], prompt: int) -> None:
        self._rows, self._prompt = rows, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Returns which rows are done, bool [B]."""
        decoded = input_ids[:, self._prompt :].tolist()
        done = [row.step(tokens) for row, tokens in zip(self._rows, decoded, strict=True)]
        return torch.tensor(done, device=input_ids.device)


class _Row:
    """One reply while it is decoded.

    Attributes:
        most: Most tokens of it.
    """

    def __init__(self, model: Model, asked: AskedReply) -> None:
        network, task = model.workspace.network, model.workspace.task
        assert isinstance(task, CausalChat)
        self.most = room_for(model, asked.prompt, asked.how)
        self._tokenizer, self._asked = model.workspace.tokenizer, asked
        self._ends, end_text = reply_ends(network, task)
        self._stops = tuple(stop for stop in (*asked.how.stops, end_text) if stop)
        self._given = 0
        self._is_ended = False
        self._count: int | None = None  # tokens of the reply, once it is done

    def step(self, decoded: list[int]) -> bool:
        """Hands out what is new in a reply so far; returns whether the reply is done.

        Args:
            decoded: Its tokens; after its end, padding.
        """
        if self._count is None:
            text = self._text(decoded)
            self._pass(text[: len(text) - _held_back(text, self._stops)])
            is_done = self._is_ended or len(decoded) >= self.most or self._asked.is_left()
            self._count = len(decoded) if is_done else None
        return self._count is not None

    def finish(self, decoded: list[int]) -> Reply:
        """Hands out the text that was held back, and returns the whole reply."""
        own = decoded[: self._count]
        text = self._text(own)
        self._pass(text)
        reason: Literal["stop", "length"] = "stop" if self._is_ended else "length"
        return Reply(text, reason, len(self._asked.prompt), len(own))

    def _text(self, decoded: list[int]) -> str:
        """Returns the reply so far, up to the end token or stop text."""
        cut = next((n for n, token in enumerate(decoded) if token in self._ends), len(decoded))
        text = str(self._tokenizer.decode(decoded[:cut], skip_special_tokens=True))
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self._is_ended = self._is_ended or bool(places) or cut < len(decoded)
        return text[: min(places, default=len(text))]

    def _pass(self, text: str) -> None:
        if len(text) > self._given:
            self._asked.give(text[self._given :])
            self._given = len(text)


def _held_back(text: str, stops: tuple[str, ...]) -> int:
    """Counts characters at the end that may begin a stop text or are an incomplete character."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    tails = range(min(longest, len(text)), 0, -1)
    begun = next((n for n in tails if any(s.startswith(text[-n:]) for s in stops)), 0)
    unfinished = len(text) - len(text.rstrip(_UNFINISHED))
    return max(begun, unfinished)
