"""Decodes the reply of a chat model and hands it out piece by piece."""

from __future__ import annotations

from collections.abc import Callable
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
from cloister.training.generation import reply_ends

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


def decode(
    model: Model,
    prompt: tuple[int, ...],
    how: Decoding,
    give: Callable[[str], None],
    is_left: Callable[[], bool],
) -> Reply:
    """Decodes one reply and hands out its text while it is decoded.

    Args:
        model: A chat model.
        prompt: Token ids, as from `prompt_of`.
        how: The settings of decoding.
        give: Called with each piece of text; together they are the reply. Text is held back while
            it may be part of an incomplete character or the beginning of a stop text.
        is_left: Returns whether the caller has left; decoding then ends with the next token.

    Raises:
        TooLongError: Prompt and reply do not fit the base's positions.
    """
    most = room_for(model, prompt, how)
    network, task = model.workspace.network, model.workspace.task
    assert isinstance(task, CausalChat)
    ends, end_text = reply_ends(network, task)
    stops = tuple(stop for stop in (*how.stops, end_text) if stop)
    following = _Following(model, len(prompt), ends, stops, give, is_left)
    ids = torch.tensor([prompt], device=network.device)
    chosen: dict[str, Any] = {"do_sample": False}
    if how.temperature >= LEAST_TEMPERATURE:
        chosen = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    # Sampling uses torch's global generators: restore their state afterwards. Only this thread
    # computes, so nothing else draws from them meanwhile.
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(how.seed) if how.seed is not None else torch.seed()
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            pad_token_id=task.pad_id,
            eos_token_id=list(ends) or None,
            stopping_criteria=StoppingCriteriaList([following]),
            **chosen,
        )
    decoded = output[0, len(prompt) :].tolist()
    is_ended = following.is_ended or any(token in ends for token in decoded)
    text = following.finish(decoded)
    return Reply(text, "stop" if is_ended else "length", len(prompt), len(decoded))


class _Following(StoppingCriteria):
    """Hands out text during decoding; stops it at a stop text or when the caller has left."""

    def __init__(
        self,
        model: Model,
        prompt: int,
        ends: tuple[int, ...],
        stops: tuple[str, ...],
        give: Callable[[str], None],
        is_left: Callable[[], bool],
    ) -> None:
        self._tokenizer, self._prompt, self._ends = model.workspace.tokenizer, prompt, ends
        self._stops, self._give, self._is_left = stops, give, is_left
        self._given = 0
        self.is_ended = False

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Returns whether decoding should stop, bool [1]."""
        text = self._text(input_ids[0, self._prompt :].tolist())
        self._pass(text[: len(text) - _held_back(text, self._stops)])
        done = self.is_ended or self._is_left()
        return torch.tensor([done], device=input_ids.device)

    def finish(self, decoded: list[int]) -> str:
        """Hands out the text that was held back, and returns the whole reply."""
        text = self._text(decoded)
        self._pass(text)
        return text

    def _text(self, decoded: list[int]) -> str:
        """Returns the reply so far, up to the end token or stop text."""
        cut = next((n for n, token in enumerate(decoded) if token in self._ends), len(decoded))
        text = str(self._tokenizer.decode(decoded[:cut], skip_special_tokens=True))
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.is_ended = self.is_ended or bool(places)
        return text[: min(places, default=len(text))]

    def _pass(self, text: str) -> None:
        if len(text) > self._given:
            self._give(text[self._given :])
            self._given = len(text)


def _held_back(text: str, stops: tuple[str, ...]) -> int:
    """Counts characters at the end that may begin a stop text or are an incomplete character."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    tails = range(min(longest, len(text)), 0, -1)
    begun = next((n for n in tails if any(s.startswith(text[-n:]) for s in stops)), 0)
    unfinished = len(text) - len(text.rstrip(_UNFINISHED))
    return max(begun, unfinished)
