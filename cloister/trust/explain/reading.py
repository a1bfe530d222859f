"""Defines the function that every method explains: a figure of an answer, from the embeddings.

Every method explains the same function: the figure f of the embeddings [B, T, H], also with some
pieces blank. The tokens of a blank piece have the embedding of the tokenizer's mask token (of its
padding if it has no mask). Ids and positions stay, so no piece moves when another is blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cloister.models.network import Network
from cloister.trust.explain.pieces import Piece

# Most padded tokens of one pass: a few rows of the longest texts, or some hundreds of short texts.
MOST_TOKENS = 4096

Figure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ModelReading:
    """An input, and the figure of its answer that is explained.

    Attributes:
        pieces: The pieces of the input.
        embedded: Embeddings of the input's tokens, [T, H].
        blank: The same with every piece blank, [T, H].
        figure: The function from embeddings [B, T, H] to the figure of each row, [B];
            differentiable.
        share: The function from figures [B] to shares from 0 to 1, such as probabilities.
        answer: The model's answer that the figure is about.
        name: The name of the figure, in words.
        group: The kind of the answer, for a summary over inputs: a label, a type of entity.
        read_at: The part of the answer that is read at each token, [T]; sums to 1.
        inputs: The base's inputs, by `Network.forward`'s names, each [1, T].
    """

    pieces: tuple[Piece, ...]
    embedded: Tensor
    blank: Tensor
    figure: Figure
    share: Figure
    answer: str
    name: str
    group: str
    read_at: Tensor
    inputs: Mapping[str, Tensor]

    def with_pieces(self, kept: Tensor) -> Tensor:
        """Returns embeddings in which the pieces that are not kept are blank.

        Args:
            kept: Whether each piece is kept, bool [B, P].

        Returns:
            The embeddings, [B, T, H].
        """
        is_kept = torch.ones(len(kept), len(self.embedded), dtype=torch.bool)
        for place, piece in enumerate(self.pieces):
            is_kept[:, list(piece.tokens)] = kept[:, place, None]
        return torch.where(is_kept[:, :, None], self.embedded, self.blank)

    def figures(self, kept: Tensor) -> Tensor:
        """Returns the figure if only some pieces are kept, float32 [B]; for any number of rows.

        Args:
            kept: Whether each piece is kept, bool [B, P].
        """
        rows = max(1, MOST_TOKENS // len(self.embedded))
        with torch.no_grad():
            found = [self.figure(self.with_pieces(part)) for part in kept.split(rows)]
        return torch.cat(found)

    @property
    def whole(self) -> Tensor:
        """Returns a row in which every piece is kept, bool [1, P]."""
        return torch.ones(1, len(self.pieces), dtype=torch.bool)


def embedded_logits(network: Network, inputs: Mapping[str, Tensor]) -> Figure:
    """Returns the network's logits as a function of its tokens' embeddings.

    The embedding layer's output is replaced while the network runs, as in captum's
    `LayerIntegratedGradients`. So architectures that scale embeddings, or derive positions from
    ids, compute as usual.

    Args:
        network: The network, in float32.
        inputs: The base's inputs for one input, each [1, T].

    Returns:
        A function from embeddings [B, T, H] to logits, [B, C] or [B, T, C].
    """
    layer: Any = network.backbone.get_input_embeddings()

    def logits(embeddings: Tensor) -> Tensor:
        handle = layer.register_forward_hook(lambda module, args, output: embeddings)
        try:
            rows = {k: v.expand(len(embeddings), -1) for k, v in inputs.items()}
            found: Tensor = network(**rows)
        finally:
            handle.remove()
        return found

    return logits


def embeddings_of(network: Network, ids: Tensor) -> Tensor:
    """Returns the embeddings [T, H] of token ids [T]."""
    layer: Any = network.backbone.get_input_embeddings()
    with torch.no_grad():
        found: Tensor = layer(ids[None])[0]
    return found


def blanked(
    network: Network, ids: Tensor, embedded: Tensor, pieces: tuple[Piece, ...], blank_id: int
) -> Tensor:
    """Returns embeddings in which every piece is blank, [T, H].

    Args:
        network: The network.
        ids: The input's token ids, [T].
        embedded: The embeddings of these ids, [T, H].
        pieces: The pieces of the input.
        blank_id: The token id whose embedding replaces a blank piece.
    """
    filled = ids.clone()
    for piece in pieces:
        filled[list(piece.tokens)] = blank_id
    places = torch.zeros(len(ids), dtype=torch.bool)
    for piece in pieces:
        places[list(piece.tokens)] = True
    return torch.where(places[:, None], embeddings_of(network, filled), embedded)
