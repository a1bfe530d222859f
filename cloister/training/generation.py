"""Generates a chat model's replies: greedy ones, which are scored by ROUGE-L, or drawn ones.

A reply ends at the end of a turn as in training (`cloister.tasks.turn_end`), at the base's own end
of text, or after `MAX_NEW_TOKENS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from cloister.data.records import ChatRecord, Record
from cloister.errors import ModelFileError
from cloister.models.limits import limits_of
from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.rouge import rouge_l
from cloister.tasks.turn_end import turn_end

# Longest reply decoded: an assistant's turn in the customer-service sets has at most about this
# many tokens of a 512-word vocabulary.
MAX_NEW_TOKENS = 64

# Conversations whose replies are generated: greedy decoding costs up to a second each.
GENERATED = 32

# By transformers' `model_type`: decoders whose positions are rotary and counted by the mask, so
# that padding before a prompt changes no logit (tests/training/test_generation.py compares each).
PADDED = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"}
)
# Rotary scalings that depend on the longest text of a batch.
_BY_LONGEST = ("dynamic", "longrope")
# Most tokens of prompts that are answered together: 16 of 512; the keys and values of a model of
# 1.5 billion parameters (28 layers of 2 × 256 float32) then take 0.5 GB.
MOST_TOGETHER = 8192


def reply_score(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
) -> float:
    """Mean ROUGE-L F-measure, in 0…1, of greedy replies in place of the last assistant turn of the
    first `GENERATED` conversations; 0 if all records are texts."""
    chats = generated_for(records)
    replies = replies_to(network, task, tokenizer, [task.prompt(record) for record in chats])
    return rouge_l(replies, [task.reference_text(record) for record in chats])


def generated_for(records: Sequence[Record]) -> list[ChatRecord]:
    """Returns the first `GENERATED` conversations, for which replies are generated."""
    return [r for r in records if isinstance(r, ChatRecord) and r.messages][:GENERATED]


def check_replies(
    network: Network, task: CausalChat, tokenizer: PreTrainedTokenizerBase, base: str
) -> None:
    """Lets a base generate once before training, as after the last round.

    Args:
        network: The opened network.
        task: The study's task.
        tokenizer: The base's.
        base: The base's name in messages.

    Raises:
        ModelFileError: It cannot generate.
    """
    try:
        reply_to(network, task, tokenizer, (task.pad_id,) * 2, most=2)
    except Exception as error:  # a network that cannot generate may raise any exception
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(
            f"model.base: {base} ({network.base.config.model_type}) cannot generate replies "
            f"({type(error).__name__}: {first}); choose another base for chat"
        ) from error


class _AtText(StoppingCriteria):
    """Stops a reply at the text that ends a turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, prompt: int) -> None:
        self._tokenizer, self._text, self._prompt = tokenizer, text, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Whether each row is done, [B]."""
        replies = [str(self._tokenizer.decode(row[self._prompt :])) for row in input_ids]
        return torch.tensor([self._text in reply for reply in replies], device=input_ids.device)


def reply_to(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    prompt: tuple[int, ...],
    most: int = MAX_NEW_TOKENS,
) -> str:
    """Generates the reply to one prompt by greedy decoding.

    Args:
        network: The network with the adapter in place.
        task: The study's task.
        tokenizer: The base's.
        prompt: Token ids; if they leave no room for a reply, only the last ones are read.
        most: Longest reply in tokens.
    """
    return replies_to(network, task, tokenizer, [prompt], most)[0]


def replies_to(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    most: int = MAX_NEW_TOKENS,
) -> list[str]:
    """Generates the replies to several prompts, in their order; see `reply_to`.

    Prompts are answered together: decoding is bound by memory, so several replies take little
    longer than one. Shorter prompts get padding before them in the families that provably ignore it
    (`PADDED`); in all others, only prompts of equal length are answered together.
    """
    new, room = reply_room(limits_of(network.base, network.virtual_tokens).positions)
    kept = [(p if room is None else p[-room:]) or (task.pad_id,) for p in prompts]
    can_pad = ignores_padding(network)
    replies = [""] * len(kept)
    for places in _together([len(prompt) for prompt in kept], can_pad=can_pad):
        found = _decoded(network, task, tokenizer, [kept[p] for p in places], min(new, most))
        for place, reply in zip(places, found, strict=True):
            replies[place] = reply
    return replies


@dataclass(frozen=True)
class Nucleus:
    """How the next token is drawn: from the most likely tokens that have `top_p` together.

    Holtzman et al. 2020 (arXiv:1904.09751).

    Attributes:
        temperature: Divides the logits; 1 is what was trained.
        top_p: 1 draws from all tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0


def sampled_texts(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    prompt: tuple[int, ...],
    *,
    copies: int,
    most: int,
    nucleus: Nucleus,
    seed: int,
) -> list[str]:
    """Draws several texts after one prompt, in one batch.

    Args:
        network: The network with the adapter in place.
        task: The study's task.
        tokenizer: The base's.
        prompt: Token ids, at least one.
        copies: Number of texts.
        most: Longest text in tokens; prompt and text must fit the base's positions.
        nucleus: How tokens are drawn; the base's own settings (`top_k`) do not count.
        seed: On one machine equal arguments give equal texts.
    """
    device = network.device
    drawing = {
        "do_sample": True,
        "temperature": nucleus.temperature,
        "top_k": 0,
        "top_p": nucleus.top_p,
    }
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _decoded(network, task, tokenizer, [prompt] * copies, most, drawing)


def ignores_padding(network: Network) -> bool:
    """Returns whether padding before a prompt changes none of its replies."""
    config: Any = network.base.config
    scaling = str(getattr(config, "rope_parameters", None))  # of each kind of layer
    is_alone = not any(kind in scaling for kind in _BY_LONGEST)
    return config.model_type in PADDED and is_alone and not network.virtual_tokens


def _together(lengths: Sequence[int], *, can_pad: bool) -> list[list[int]]:
    """Groups prompts by length, each group at most `MOST_TOGETHER` tokens with its padding."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        length = lengths[place]
        fits = groups and (len(groups[-1]) + 1) * length <= MOST_TOGETHER
        if fits and (can_pad or lengths[groups[-1][0]] == length):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def left_padded(
    prompts: Sequence[tuple[int, ...]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns prompts with padding before them, and the mask of their own tokens, both [B, T]."""
    width = max(map(len, prompts))
    padded = [(pad_id,) * (width - len(prompt)) + prompt for prompt in prompts]
    lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
    mask = torch.arange(width, device=device) >= width - lengths
    return torch.tensor(padded, device=device), mask.long()


def _decoded(
    network: Network,
    task: CausalChat,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    most: int,
    drawing: Mapping[str, Any] | None = None,
) -> list[str]:
    """Replies to prompts, whose padding to one length comes before them: greedy ones, or drawn as
    stated."""
    ids, mask = left_padded(prompts, task.pad_id, network.device)
    ends, stop = reply_ends(network, task)
    stopping = [_AtText(tokenizer, stop, ids.shape[1])] if stop else []
    with torch.inference_mode(), warnings.catch_warnings():
        # With a prompt peft lets the base count positions, which is what a whole pass does too.
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            **(drawing or {"do_sample": False}),
            pad_token_id=task.pad_id,
            eos_token_id=list(ends) or None,
            stopping_criteria=StoppingCriteriaList(stopping),
        )
    texts = []
    for row in output[:, ids.shape[1] :].tolist():
        cut = next((place for place, token in enumerate(row) if token in ends), len(row))
        text = str(tokenizer.decode(row[:cut], skip_special_tokens=True))
        texts.append(text.split(stop)[0] if stop else text)
    return texts


def reply_room(positions: int | None) -> tuple[int, int | None]:
    """Returns the most tokens of a reply, and of the prompt before it (None: no limit).

    Args:
        positions: Positions of the base; None if there is no limit.
    """
    if positions is None:
        return MAX_NEW_TOKENS, None
    new = min(MAX_NEW_TOKENS, positions // 2)
    return new, positions - new


def reply_ends(network: Network, task: CausalChat) -> tuple[tuple[int, ...], str]:
    """Returns the token ids that end a reply (the base's and the trained one), and an ending
    text."""
    end = turn_end(task)
    own = network.base.generation_config.eos_token_id
    ids = own if isinstance(own, list) else [] if own is None else [own]
    taught = [end.token] if end.token is not None and end.token not in ids else []
    return (*ids, *taught), end.text


def beginning_ids(task: CausalChat, text: str) -> tuple[int, ...]:
    """Returns the tokens of a text's beginning, after the token with which texts begin or end."""
    tokenizer = task.tokenizer
    ids = list(tokenizer(text, verbose=False)["input_ids"]) if text else []
    last = tokenizer.eos_token_id
    while ids and ids[-1] in (last, tokenizer.sep_token_id):
        ids.pop()  # a tokenizer that ends every text would end this one
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else last
    if not ids:
        return (task.pad_id if first is None else int(first),)
    return tuple(ids)
