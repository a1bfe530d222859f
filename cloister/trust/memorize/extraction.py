"""Whether a chat model continues a private reply word for word.

A record is extractable if the model, given the conversation and the reply up to its last k tokens,
produces these k tokens (Carlini et al. 2023, arXiv:2202.07646, definition 3.1, with the whole rest
as the context): by greedy decoding, or by one of several samples at temperature 1.

That a model continues a reply may show that it memorized it, or that the reply is predictable. So
the same is asked of the base without the adapter and of public records, which nobody trained on.
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
    """A record's beginning, and how it goes on.

    Attributes:
        record: Its number among those that were given, from 0.
        given: The tokens that the model reads.
        wanted: The k tokens behind them.
    """

    record: int
    given: tuple[int, ...]
    wanted: tuple[int, ...]


@dataclass(frozen=True)
class Continued:
    """What the model made of one attempt.

    Attributes:
        greedy: Tokens that greedy decoding has right before its first other one.
        sampled: The same of the best sample; None: none was drawn.
        of: k.
    """

    greedy: int
    sampled: int | None
    of: int

    @property
    def is_greedy(self) -> bool:
        """Whether greedy decoding gives all k tokens."""
        return self.greedy == self.of

    @property
    def is_sampled(self) -> bool:
        """Whether a sample has all k tokens."""
        return self.sampled == self.of


def attempts(model: Model, records: Sequence[ChatRecord], tokens: int) -> list[Continuation]:
    """The attempts that records allow: those whose last reply has k tokens or more. Tokens are
    those that training reads.

    Args:
        model: A chat model.
        records: Conversations, or texts that were learnt as a whole.
        tokens: k.
    """
    found = []
    for number, example in enumerate(model.workspace.encode(records)):
        assert isinstance(example.target, tuple)
        learnt = [place for place, target in enumerate(example.target) if target != IGNORE]
        end = learnt[-1] + 1 if learnt else 0
        start = end
        while start > 0 and example.target[start - 1] != IGNORE:
            start -= 1
        # Of a text that is learnt as a whole the first token has nothing before it.
        if end - max(start, 1) >= tokens:
            cut = end - tokens
            found.append(Continuation(number, example.input_ids[:cut], example.input_ids[cut:end]))
    return found


def continued(
    model: Model, asked: Sequence[Continuation], samples: int, seed: int
) -> list[Continued]:
    """Lets the model continue each attempt.

    Args:
        model: A chat model.
        asked: From `attempts`.
        samples: Samples of each, beside greedy decoding.
        seed: Of the samples.
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
    """Greedy decoding's tokens; or those of some samples."""
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
    """How many tokens are right before the first other one."""
    for place, token in enumerate(wanted):
        if place >= len(made) or made[place] != token:
            return place
    return len(wanted)
