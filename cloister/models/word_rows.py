"""Finds the rows of a language model's output embedding for words.

Shapes: H hidden units, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.kinds import is_decoder


def word_rows(
    backbone: PreTrainedModel,
    words: Sequence[Sequence[int]],
    whole: Callable[[], PreTrainedModel],
) -> Tensor:
    """Returns, for each label, the mean of the output embedding's rows of its tokens.

    Args:
        backbone: The base's network of hidden states.
        words: Token ids of each label, at least one each.
        whole: Loads the base with its language-modelling head; called if the output embedding is
            not the input embedding.

    Returns:
        float32 [C, H].

    Raises:
        UsageError: The base is not a causal LM whose output embedding fits the head's vectors.
    """
    config: Any = backbone.config.get_text_config()
    remedy = 'choose a decoder, or set lora.head = "linear"'
    if not is_decoder(config.model_type):
        raise UsageError(
            f"lora.head: label-words given, but a {config.model_type} is not a causal language "
            f"model, so it has no output embedding for its hidden states; {remedy}"
        )
    source: Any = (
        backbone.get_input_embeddings()
        if config.tie_word_embeddings
        else whole().get_output_embeddings()
    )
    rows: Tensor = source.weight.detach()
    hidden = int(config.hidden_size)
    if rows.shape[1] != hidden:
        raise UsageError(
            f"lora.head: label-words given, but the output embedding of this {config.model_type} "
            f"has rows of {rows.shape[1]} values and its hidden states have {hidden}: there is a "
            f"projection between them; {remedy}"
        )
    highest = max(max(ids) for ids in words)
    if highest >= len(rows):
        raise UsageError(
            f"lora.head: label-words given, but a label's token has id {highest} and the output "
            f"embedding has only {len(rows)} rows; {remedy}"
        )
    means = [rows[list(ids)].to(device="cpu", dtype=torch.float32).mean(dim=0) for ids in words]
    return torch.stack(means)
