"""The rows of a language model's output embedding that stand for words.

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
    """The mean of the output embedding's rows of each label's tokens.

    Args:
        backbone: The base's network of hidden states.
        words: Token ids of each label, at least one each.
        whole: Loads the base with its language-modelling head; called where the output embedding is
            not the input's.

    Returns:
        float32 [C, H].

    Raises:
        UsageError: The base writes no words off the vectors that a head reads.
    """
    config: Any = backbone.config.get_text_config()
    remedy = 'choose a decoder, or set lora.head = "linear"'
    if not is_decoder(config.model_type):
        raise UsageError(
            f"lora.head: label-words given, and a {config.model_type} is no causal language model: "
            f"no row of an output embedding of its own fits its hidden states; {remedy}"
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
            f"lora.head: label-words given, and the output embedding of this {config.model_type} "
            f"has rows of {rows.shape[1]} values, its hidden states have {hidden}: what it reads "
            f"went through a projection of its own; {remedy}"
        )
    highest = max(max(ids) for ids in words)
    if highest >= len(rows):
        raise UsageError(
            f"lora.head: label-words given, and a label's token has id {highest} where the output "
            f"embedding has {len(rows)} rows; {remedy}"
        )
    means = [rows[list(ids)].to(device="cpu", dtype=torch.float32).mean(dim=0) for ids in words]
    return torch.stack(means)
