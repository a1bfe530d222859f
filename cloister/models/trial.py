"""Tries a forward pass, to check that a base needs only token ids.

A configuration does not show everything: a network may need pictures, sound, boxes on a page or a
decoder's input beside the ids, or lack what its pooling needs. It would then fail at the first
record, after the first charge; so two tokens are tried when it is opened.
"""

from __future__ import annotations

import torch

from cloister.errors import ModelFileError
from cloister.models.network import Network
from cloister.models.prefix_check import TOLERANCE, coarsest

# Tokens of the texts that show whether a token reads later ones: fewer than any base's positions.
_TOKENS = 8
# Token counts of a padded row and a full one, as in batches.
_MASK = ((1, 1), (1, 0))


def check_reads(network: Network, base: str, pad_id: int) -> None:
    """Checks that a network can compute two synthetic texts.

    Args:
        network: The network with adapters, head and pooling.
        base: Its name in messages.
        pad_id: A token id that the base knows.

    Raises:
        ModelFileError: It fails, or does not return one row of logits per text or token.
    """
    ids = torch.full((2, 2), pad_id, device=network.device)
    mask = torch.tensor(_MASK, device=network.device)
    needed = "choose a base that reads only token ids"
    try:
        with torch.no_grad():
            logits = network(ids, mask)
    except Exception as error:  # a network without an input may raise any error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = network.base.config.model_type
        raise ModelFileError(
            f"model.base: {base} ({kind}) cannot read texts ({type(error).__name__}: {first}); "
            f"{needed}"
        ) from error
    if logits.shape[0] != 2 or (logits.dim() == 3 and logits.shape[1] != 2):
        raise ModelFileError(
            f"model.base: {base} gives logits of shape {tuple(logits.shape)} for 2 texts of 2 "
            f"tokens; {needed}"
        )


def check_reads_backwards(network: Network, base: str) -> None:
    """Refuses a language model whose tokens read later tokens.

    It would copy each token of a reply and not learn to write it. A configuration does not always
    show it (XLNet's tokens read the whole text by default), so it is tried.

    Args:
        network: The network of a causal LM.
        base: Its name in messages.

    Raises:
        ModelFileError: The first token's logits change with later ones.
    """
    ids = torch.zeros((2, _TOKENS), dtype=torch.long, device=network.device)
    ids[1] = torch.arange(_TOKENS) % network.vocabulary
    with torch.no_grad():
        one, other = network(ids, torch.ones_like(ids))[:, 0].float()
    if not (one - other).norm() <= TOLERANCE[coarsest(network)] * one.norm():
        kind = network.base.config.model_type
        raise ModelFileError(
            f"model.base: in {base} ({kind}) a token reads later ones, so it would copy the reply "
            "and not learn it; choose a decoder (Llama, GPT-2, …) for this task.kind"
        )
