"""How the hidden states of a sequence become the one vector that a head reads.

Shapes: B records, T tokens, H hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cloister.errors import ModelFileError
from cloister.models.base import has_pooler
from cloister.models.config import PoolingMode, VectorMode
from cloister.models.kinds import is_decoder
from cloister.models.sentence_folder import folder_pooling

# Classes whose training put a loss on the pooler's output (BERT's and ALBERT's next-sentence or
# sentence-order objectives), by the ending of their name.
_POOLER_TRAINED = ("ForPreTraining", "ForNextSentencePrediction", "ForSequenceClassification")
# Before format 3 of a recipe, `auto` took the pooler of these architectures wherever there was one.
_ONCE_POOLERS = {"bert", "albert"}


@dataclass(frozen=True)
class Pooling:
    """A pooling, and whether its vector is scaled.

    Attributes:
        mode: Which token states are taken.
        normalize: Whether the vector is scaled to length √H (a sentence-transformers base with a
            `Normalize` module was trained on directions; √H keeps coordinates near 1, so that a
            head's learning rate does not depend on the base's width).
        why: What decided, in words, for whoever runs the study; no part of the value.
    """

    mode: VectorMode
    normalize: bool
    why: str = field(default="", compare=False)

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

    def __str__(self) -> str:
        scaled = ", normalized" if self.normalize else ""
        return f"{self.mode}{scaled}" + (f" ({self.why})" if self.why else "")


def choose_pooling(
    folder: Path, network: PreTrainedModel, mode: PoolingMode, normalize: bool | None = None
) -> Pooling:
    """Chooses the pooling: the recipe's, else the folder's, else the mean.

    A pooler or first token is used only where the folder says that training went through it: a
    folder of `save_pretrained` alone does not tell what its pooler was trained for, and a frozen
    one that was trained for nothing keeps a head at the most frequent class.

    Args:
        folder: The base's folder.
        network: Its network.
        mode: The recipe's choice.
        normalize: The recipe's choice; None: what the folder says under `auto`, else no.

    Raises:
        ModelFileError: The folder's sentence-transformers files cannot be read, or it has no
            pooler where one is asked for.
    """
    if mode == "pooler" and not _has_pooler(folder, network):
        raise ModelFileError(
            f'model.pooling: "pooler" given, but {folder} holds no trained pooler; '
            'use "mean", "cls" or "last"'
        )
    if mode == "auto":
        vector, scaled, why = _said(folder, network) or _usual(network.config)
    elif mode == "trained":
        vector, scaled, why = _as_before(folder, network)
    else:
        vector, scaled, why = mode, False, "as model.pooling says"
    if normalize is not None and normalize != scaled:
        scaled, why = normalize, f"{why}; model.normalize = {str(normalize).lower()}"
    return Pooling(vector, scaled, why)


Chosen = tuple[VectorMode, bool, str]


def _has_pooler(folder: Path, network: PreTrainedModel) -> bool:
    """Whether the network has a pooler, and the folder its weights.

    DeBERTa's classifiers, for one, bring a pooler that the network alone lacks.
    """
    return getattr(network, "pooler", None) is not None and has_pooler(folder)


def _said(folder: Path, network: PreTrainedModel) -> Chosen | None:
    """Returns the pooling that the folder states; None where it states none."""
    config, told = network.config, folder_pooling(folder)
    if told is not None:
        return told
    saved = next(iter(getattr(config, "architectures", None) or ()), "")
    if is_decoder(config.model_type) or not saved.endswith(_POOLER_TRAINED):
        return None
    if _has_pooler(folder, network):
        return "pooler", False, f"its config.json says {saved}, whose training reads the pooler"
    if not saved.endswith("ForSequenceClassification"):
        return None
    own = getattr(config, "classifier_pooling", None)  # ModernBERT
    vector: VectorMode = "mean" if own == "mean" else "cls"
    return vector, False, f"its config.json says {saved}, whose training reads that"


def _usual(config: Any) -> Chosen:
    if is_decoder(config.model_type):
        return "last", False, "a decoder's last token alone has read the whole text"
    return "mean", False, "the folder does not say how it pools"


def _as_before(folder: Path, network: PreTrainedModel) -> Chosen:
    """Returns the pooling that `auto` meant before format 3 of a recipe."""
    why = "as a study of an earlier version pooled it"
    told = folder_pooling(folder)
    if told is not None:
        return told
    kind = network.config.model_type
    if kind in _ONCE_POOLERS and has_pooler(folder):
        return "pooler", False, why
    return ("last" if is_decoder(kind) else "cls"), False, why
