"""Draws texts from a chat model in batches: which prompt, how many copies, and by which seed.

Batch b is a function of prompts, options and b alone, so that a file that was interrupted goes on
as it would have gone on, without a state of the generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.data.records import ChatRecord, Message
from cloister.errors import MisfitError, UsageError
from cloister.models.limits import limits_of
from cloister.seeds import child_generator, child_seed
from cloister.serving.model import Model
from cloister.synthesis.public_prompts import PublicPrompt
from cloister.tasks.chat import CausalChat
from cloister.training.generation import Nucleus, beginning_ids, sampled_texts


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        prompt: The prompt.
        ids: Its token ids, at least one.
    """

    prompt: PublicPrompt
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The sequence of batches.

    Attributes:
        model: The model, loaded.
        prompts: The prompts, encoded, in the order in which they are used.
        nucleus: How tokens are drawn.
        most_tokens: Longest text in tokens.
        copies: Most texts of a batch.
        seed: Seed of the texts.
    """

    model: Model
    prompts: tuple[EncodedPrompt, ...]
    nucleus: Nucleus
    most_tokens: int
    copies: int
    seed: int

    def batch(self, number: int) -> tuple[PublicPrompt, list[str]]:
        """Draws a batch.

        Args:
            number: From 0; a batch has one prompt, and all prompts follow each other.

        Returns:
            The prompt, and the texts that follow it.
        """
        one = self.prompts[number % len(self.prompts)]
        room = self.model.max_tokens // (len(one.ids) + self.most_tokens)
        workspace = self.model.workspace
        texts = sampled_texts(
            workspace.network,
            task_of(self.model),
            workspace.tokenizer,
            one.ids,
            copies=max(1, min(self.copies, room)),
            most=self.most_tokens,
            nucleus=self.nucleus,
            seed=child_seed(self.seed, "synthesize", number),
        )
        return one.prompt, texts


def task_of(model: Model) -> CausalChat:
    """Returns the model's task.

    Raises:
        UsageError: It is no language model for texts.
    """
    task = model.workspace.task
    if not isinstance(task, CausalChat):
        raise UsageError(
            f"a model for {task.kind} writes no text; synthesize needs one for causal-lm"
        )
    return task


def planned_draws(
    model: Model,
    prompts: Sequence[PublicPrompt],
    *,
    count: int,
    is_text: bool,
    nucleus: Nucleus,
    most_tokens: int,
    seed: int,
) -> Draws:
    """Encodes the prompts and plans the batches.

    Args:
        model: The model, loaded.
        prompts: The prompts.
        count: Number of records that are wanted; each prompt gets about the same number.
        is_text: Whether prompts are beginnings of texts, and not questions to an assistant.
        nucleus: How tokens are drawn.
        most_tokens: Longest text in tokens.
        seed: Seed of the texts and of the prompts' order.

    Raises:
        UsageError: A prompt leaves no room for a text.
    """
    task = task_of(model)
    network = model.workspace.network
    positions = limits_of(network.base, network.virtual_tokens).positions
    encoded = []
    for number, prompt in enumerate(prompts, 1):
        ids = beginning_ids(task, prompt.text) if is_text else _question(task, prompt.text, number)
        if positions is not None and len(ids) + most_tokens > positions:
            raise UsageError(
                f"--prompts: prompt {number} has {len(ids)} tokens, which with --most-tokens "
                f"{most_tokens} is more than the base's {positions} positions; shorten one of them"
            )
        encoded.append(EncodedPrompt(prompt, ids))
    order = child_generator(seed, "synthesize", "prompts").permutation(len(encoded))
    return Draws(
        model=model,
        prompts=tuple(encoded[int(place)] for place in order),
        nucleus=nucleus,
        most_tokens=most_tokens,
        copies=math.ceil(count / len(encoded)),
        seed=seed,
    )


def _question(task: CausalChat, text: str, number: int) -> tuple[int, ...]:
    """Returns the tokens of a user's turn, up to where the assistant begins."""
    turns = (Message("user", text), Message("assistant", ""))
    try:
        return task.whole_prompt(ChatRecord(turns))
    except MisfitError as error:
        raise MisfitError(error.reason, f"--prompts: prompt {number}: {error}") from error
