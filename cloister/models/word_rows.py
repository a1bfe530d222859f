"""The rows of a language model's output embedding that stand for words.

Shapes: H hidden units, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.base import load_backbone
from cloister.models.config import ModelConfig
from cloister.models.kinds import is_decoder, network_class, read_config


def word_rows(
    folder: Path, backbone: PreTrainedModel, model: ModelConfig, words: Sequence[Sequence[int]]
) -> Tensor:
    """The mean of the output embedding's rows of each label's tokens.

    Args:
        folder: The base's, where the output embedding is read from unless it is the input's.
        backbone: The base's network of hidden states.
        model: The `[model]` section.
        words: Token ids of each label, at least one each.

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
    rows = _output_rows(folder, backbone, model, is_tied=bool(config.tie_word_embeddings))
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


def _output_rows(
    folder: Path, backbone: PreTrainedModel, model: ModelConfig, *, is_tied: bool
) -> Tensor:
    if is_tied:
        source: Any = backbone.get_input_embeddings()
    else:
        network_class(folder, read_config(folder), causal=True)  # refuses what has no such head
        source = load_backbone(folder, model, causal=True).get_output_embeddings()
    weight: Tensor = source.weight.detach()
    return weight
