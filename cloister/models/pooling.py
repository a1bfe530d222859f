"""Pools the hidden states of a sequence into the one vector that a head reads.

Shapes: B records, T tokens, H hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cloister.errors import ModelFileError
from cloister.models.base import has_pooler
from cloister.models.config import PoolingMode, VectorMode
from cloister.models.kinds import is_decoder
from cloister.models.sentence_folder import folder_pooling

# Endings of the names of classes whose training has a loss on the pooler's output (the
# next-sentence and sentence-order objectives of BERT and ALBERT).
_POOLER_TRAINED = ("ForPreTraining", "ForNextSentencePrediction", "ForSequenceClassification")
# Before format 3 of a recipe, `auto` used the pooler of these architectures if there was one.
_ONCE_POOLERS = {"bert", "albert"}


@dataclass(frozen=True)
class Pooling:
    """A pooling, and whether its vector is scaled.

    Attributes:
        mode: Which token states are used.
        normalize: Whether the vector is scaled to length √H (a sentence-transformers base with a
            `Normalize` module was trained on directions; √H keeps coordinates near 1, so that a
            head's learning rate does not depend on the base's width).
        why: The reason for the choice, in words, for people; not part of the value.
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

    def of_part(self, hidden: Tensor, part: Tensor) -> Tensor:
        """Pools one of a row's texts: hidden states [B, T, H] to [B, H].

        Args:
            hidden: The states of all tokens.
            part: 1 at the text's tokens, int64 [B, T]; a row that is no record may have none, and
                then gets an arbitrary finite vector.
        """
        if self.mode == "mean":
            mask = part.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        else:
            places = torch.arange(part.shape[1], device=part.device)
            at = part.argmax(dim=1) if self.mode == "cls" else (part * places).argmax(dim=1)
            pooled = hidden[range(len(hidden)), at]
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

    A pooler or first token is used only if the folder says that it was trained: a folder of
    `save_pretrained` alone does not tell whether its pooler was trained, and with an untrained
    frozen pooler a head learns only the most frequent class.

    Args:
        folder: The base's folder.
        network: Its network.
        mode: The recipe's choice.
        normalize: The recipe's choice; None: the folder's value under `auto`, else no.

    Raises:
        ModelFileError: The folder's sentence-transformers files cannot be read, or a pooler is
            requested and it has none.
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
    """Returns whether the network has a pooler, and the folder its weights.

    For example, DeBERTa's classifiers save a pooler that the network alone does not have.
    """
    return getattr(network, "pooler", None) is not None and has_pooler(folder)


def _said(folder: Path, network: PreTrainedModel) -> Chosen | None:
    """Returns the pooling that the folder's files state; None: they state none."""
    config, stated = network.config, folder_pooling(folder)
    if stated is not None:
        return stated
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
        return "last", False, "in a decoder only the last token has read the whole text"
    return "mean", False, "the folder does not state its pooling"


def _as_before(folder: Path, network: PreTrainedModel) -> Chosen:
    """Returns the pooling that `auto` meant before format 3 of a recipe."""
    why = "as a study of an earlier version pooled it"
    stated = folder_pooling(folder)
    if stated is not None:
        return stated
    kind = network.config.model_type
    if kind in _ONCE_POOLERS and has_pooler(folder):
        return "pooler", False, why
    return ("last" if is_decoder(kind) else "cls"), False, why
