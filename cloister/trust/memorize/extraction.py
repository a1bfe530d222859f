"""Tests whether a chat model continues a private reply word for word.

The model reads the conversation and the reply without its last k tokens. The record is extractable
if the model produces these k tokens (Carlini et al. 2023, arXiv:2202.07646, definition 3.1, with
all earlier tokens as the context): by greedy decoding, or in one of several samples at temperature
1.

A continued reply may be memorized or predictable. So the same test is run on the base without the
adapter, and on public records, on which no model was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister.data.records import ChatRecord
from cloister.seeds import child_seed
from cloister.serving.model import Model
from cloister.tasks.task import IGNORE


@dataclass(frozen=True)
class Continuation:
    """A record's beginning, and the tokens that follow it.

    Attributes:
        record: The record's index among the given records.
        given: The tokens that the model reads.
        wanted: The k tokens that follow.
    """

    record: int
    given: tuple[int, ...]
    wanted: tuple[int, ...]


@dataclass(frozen=True)
class Continued:
    """The result of one attempt.

    Attributes:
        greedy: Number of correct tokens before the first wrong one, by greedy decoding.
        sampled: The same number for the best sample; None: no sample was drawn.
        of: The number k of wanted tokens.
    """

    greedy: int
    sampled: int | None
    of: int

    @property
    def is_greedy(self) -> bool:
        """Returns whether greedy decoding gives all k tokens."""
        return self.greedy == self.of

    @property
    def is_sampled(self) -> bool:
        """Returns whether a sample has all k tokens."""
        return self.sampled == self.of


def attempts(model: Model, records: Sequence[ChatRecord], tokens: int) -> list[Continuation]:
    """Returns an attempt for each record whose last reply has at least k tokens.

    Tokens are those that training reads.

    Args:
        model: A chat model.
        records: Conversations, or texts that were learnt as a whole.
        tokens: The number k of tokens that the model must produce.
    """
    found = []
    for number, example in enumerate(model.workspace.encode(records)):
        assert isinstance(example.target, tuple)
        learnt = [place for place, target in enumerate(example.target) if target != IGNORE]
        end = learnt[-1] + 1 if learnt else 0
        start = end
        while start > 0 and example.target[start - 1] != IGNORE:
            start -= 1
        # The first token of a text that is learnt as a whole has no token before it.
        if end - max(start, 1) >= tokens:
            cut = end - tokens
            found.append(Continuation(number, example.input_ids[:cut], example.input_ids[cut:end]))
    return found


def continued(
    model: Model, asked: Sequence[Continuation], samples: int, seed: int
) -> list[Continued]:
    """Lets the model continue each attempt, and counts the correct tokens.

    Args:
        model: A chat model.
        asked: The attempts, from `attempts`.
        samples: Number of samples for each attempt, in addition to greedy decoding.
        seed: The seed of the samples.
    """
    found = []
    for one in asked:
        (greedy,) = _continuations(model, one, 0)
        best = None
        if samples:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(child_seed(seed, f"extraction {one.record}"))
                drawn = _continuations(model, one, samples)
            best = max(_right(row, one.wanted) for row in drawn)
        found.append(Continued(_right(greedy, one.wanted), best, len(one.wanted)))
    return found


def _continuations(model: Model, one: Continuation, samples: int) -> list[list[int]]:
    """Returns the tokens of greedy decoding (no samples), or of each sample."""
    network, task = model.workspace.network, model.workspace.task
    ids = torch.tensor([one.given])
    drawing: dict[str, Any] = {"do_sample": False}
    if samples:
        drawing = {
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "num_return_sequences": samples,
        }
    with torch.inference_mode():
        output = network.backbone.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=len(one.wanted),
            pad_token_id=task.pad_id,  # type: ignore[attr-defined]
            **drawing,
        )
    rows: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return rows


def _right(made: Sequence[int], wanted: Sequence[int]) -> int:
    """Returns the number of correct tokens before the first wrong one."""
    for place, token in enumerate(wanted):
        if place >= len(made) or made[place] != token:
            return place
    return len(wanted)
