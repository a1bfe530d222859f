"""How the hidden states of a sequence become the one vector that a head reads.

Shapes: B records, T tokens, H hidden units.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from cloister.errors import ModelFileError
from cloister.models.base import has_pooler
from cloister.models.config import PoolingMode

# The sentence-transformers pooling flags that have a counterpart here.
_SENTENCE_TRANSFORMERS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
# Architectures whose pooler was trained with the base (next-sentence or sentence-order objective).
_TRAINED_POOLERS = {"bert", "albert"}


@dataclass(frozen=True)
class Pooling:
    """A pooling with what follows it.

    Attributes:
        mode: Which token states are taken.
        normalize: Whether the vector is scaled to length √H (a sentence-transformers base with a
            `Normalize` module was trained on directions; √H keeps coordinates near 1, so that a
            head's learning rate does not depend on the base's width).
    """

    mode: Literal["mean", "cls", "pooler", "last"]
    normalize: bool

    def __call__(self, output: Any, attention_mask: Tensor) -> Tensor:
        """Pools a transformers output: hidden states [B, T, H] to [B, H]."""
        hidden: Tensor = output.last_hidden_state
        if self.mode == "pooler":
            pooled: Tensor = output.pooler_output
        elif self.mode == "cls":
            pooled = hidden[:, 0]
        elif self.mode == "last":
            last = attention_mask.sum(dim=1) - 1
            pooled = hidden[range(len(hidden)), last]
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        if self.normalize:
            pooled = F.normalize(pooled, dim=1) * math.sqrt(pooled.shape[1])
        return pooled


def choose_pooling(folder: Path, model_type: str, mode: PoolingMode) -> Pooling:
    """The pooling that a base was trained with, or the one asked for.

    Args:
        folder: The base's folder.
        model_type: Its architecture, as transformers names it.
        mode: The recipe's choice.

    Raises:
        ModelFileError: The folder's sentence-transformers files cannot be read, or it has no
            pooler where one is asked for.
    """
    modules = folder / "modules.json"
    if mode == "pooler" and not has_pooler(folder):
        raise ModelFileError(
            f'model.pooling: "pooler" given, but {folder} holds no trained pooler; '
            'use "mean", "cls" or "last"'
        )
    if mode != "auto":
        return Pooling(mode, normalize=False)
    if modules.exists():
        return _sentence_transformers(modules)
    if model_type in _TRAINED_POOLERS and has_pooler(folder):
        return Pooling("pooler", normalize=False)
    return Pooling("last" if is_decoder(model_type) else "cls", normalize=False)


def is_decoder(model_type: str) -> bool:
    """Whether transformers knows the architecture as a causal language model and not as a masked
    one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    return (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _sentence_transformers(modules: Path) -> Pooling:
    try:
        listed = json.loads(modules.read_text(encoding="utf-8"))
        normalize = any(module["type"].endswith(".Normalize") for module in listed)
        path = next(m["path"] for m in listed if m["type"].endswith(".Pooling"))
        flags = json.loads((modules.parent / path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise ModelFileError(
            f"model.pooling: {modules} cannot be read; set model.pooling to the right mode"
        ) from error
    for flag, mode in _SENTENCE_TRANSFORMERS.items():
        if flags.get(flag):
            return Pooling(mode, normalize)  # type: ignore[arg-type]
    raise ModelFileError(
        f"model.pooling: {modules.parent / path} pools in a way that is not supported; "
        "set model.pooling to mean, cls or last"
    )
