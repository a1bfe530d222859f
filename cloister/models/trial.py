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


def check_apart(network: Network, base: str, max_length: int) -> None:
    """Refuses a base that gives a text another vector beside a second text than by itself.

    A base may ignore a given attention mask (DeBERTa). Or its layers have a sliding window, which
    the given mask replaces, so that texts longer than the window get other vectors (Mistral).

    Args:
        network: A network that encodes two texts separately.
        base: Its name in messages.
        max_length: Most tokens of both texts; a text of half this length and a shorter one are
            tried.

    Raises:
        ModelFileError: The vector of one of the texts differs.
    """
    try:
        difference = _beside_another(network, max_length)
        why = f"a text's vector differs by {difference:.2g} of its length"
    except Exception as error:  # a network that does not accept the mask may raise any error
        difference, why = float("inf"), (str(error).strip() or type(error).__name__).splitlines()[0]
    if not difference <= TOLERANCE[coarsest(network)]:
        raise ModelFileError(
            f"model.base: {base} ({network.base.config.model_type}) gives a text another vector "
            f"beside a second text than by itself ({why}); choose another base, or leave "
            'task.encoder = "bi" out'
        )


def _beside_another(network: Network, max_length: int) -> float:
    """Returns the largest relative difference between a text's vectors beside another and alone."""
    two, pooling = network.two, network.pooling
    assert two is not None
    assert pooling is not None
    half = max_length // 2
    lengths = (half, max(half // 2, 1))
    texts = [torch.arange(2, 2 + n, device=network.device) % network.vocabulary for n in lengths]
    row = torch.cat(texts)[None]
    second = (torch.arange(row.shape[1], device=network.device) >= half).to(row)[None]
    found = []
    with torch.no_grad():
        hidden = network.backbone(
            input_ids=row, attention_mask=torch.ones_like(row), second=second
        ).last_hidden_state
        for text, part in zip(texts, (1 - second, second), strict=True):
            mask = torch.ones_like(text)[None]
            alone = pooling(network.backbone(input_ids=text[None], attention_mask=mask), mask)
            difference = pooling.of_part(hidden, part).float() - alone.float()
            found.append(float(difference.norm() / alone.float().norm()))
    return max(found)
