"""A trial pass that shows whether a base needs token ids alone.

Configurations do not tell all: a network may wait for pictures, sound, boxes on a page or a
decoder's input beside the ids, or lack what its pooling takes. It then fails at the first record,
after the first charge; so two tokens go through when it is opened.
"""

from __future__ import annotations

import torch

from cloister.errors import ModelFileError
from cloister.models.network import Network
from cloister.models.prefix_check import TOLERANCE, coarsest

# Tokens of the texts that show whether a first token reads on, short of every base's positions.
_TOKENS = 8
# Of a row that is padded and one that is not, as batches have them.
_MASK = ((1, 1), (1, 0))


def check_reads(network: Network, base: str, pad_id: int) -> None:
    """Checks that a network computes two synthetic texts.

    Args:
        network: With adapters, head and pooling.
        base: What messages call it.
        pad_id: A token id that the base knows.

    Raises:
        ModelFileError: It fails, or does not give one row of logits a text or token.
    """
    ids = torch.full((2, 2), pad_id, device=network.device)
    mask = torch.tensor(_MASK, device=network.device)
    needed = "choose a base that reads token ids alone"
    try:
        with torch.no_grad():
            logits = network(ids, mask)
    except Exception as error:  # a network that misses an input may raise whatever Python does
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
    """Refuses a language model whose tokens read what comes after them.

    It would learn each token of a reply by reading it, and could write none. Configurations do not
    tell all (XLNet's tokens read the whole text unless they are told not to), so it is tried.

    Args:
        network: Of a causal LM.
        base: What messages call it.

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
            f"model.base: in {base} ({kind}) a token reads what comes after it, so that it would "
            "learn a reply by reading it; choose a decoder (Llama, GPT-2, …) for this task.kind"
        )
