"""An input as the network reads it, with one figure of its answer as a function of its embeddings.

Every method speaks of the same function: the figure f of the embeddings [B, T, H], and what it is
where some pieces are blank, which means that their tokens' embeddings are those of the tokenizer's
mask token (padding where it has none). Ids and positions stay, so no piece moves when another is
blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cloister.models.network import Network
from cloister.trust.explain.pieces import Piece

# Padded tokens of one pass: a few rows of the longest texts, some hundreds of short ones.
MOST_TOKENS = 4096

Figure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ModelReading:
    """An input, and the figure of its answer that is explained.

    Attributes:
        pieces: What the explanation speaks of.
        embedded: Embeddings of the input's tokens, [T, H].
        blank: The same with every piece blank, [T, H].
        figure: Of embeddings [B, T, H] the figure of each row, [B]; differentiable.
        share: Of figures [B], where they lie from 0 to 1: a probability or the like.
        answer: What the model answers, of which the figure speaks.
        name: What the figure is, in words.
        group: Answers of one kind, for a summary over inputs: a label, a type of entity.
        read_at: How much of the answer is read at each token, [T]; sums to 1.
        inputs: What the base reads, by `Network.forward`'s names, each [1, T].
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
        """Embeddings in which the pieces that are not kept are blank.

        Args:
            kept: bool [B, P].

        Returns:
            [B, T, H].
        """
        is_kept = torch.ones(len(kept), len(self.embedded), dtype=torch.bool)
        for place, piece in enumerate(self.pieces):
            is_kept[:, list(piece.tokens)] = kept[:, place, None]
        return torch.where(is_kept[:, :, None], self.embedded, self.blank)

    def figures(self, kept: Tensor) -> Tensor:
        """The figure with some pieces kept only, float32 [B]; any number of rows.

        Args:
            kept: bool [B, P].
        """
        rows = max(1, MOST_TOKENS // len(self.embedded))
        with torch.no_grad():
            found = [self.figure(self.with_pieces(part)) for part in kept.split(rows)]
        return torch.cat(found)

    @property
    def whole(self) -> Tensor:
        """Every piece kept, bool [1, P]."""
        return torch.ones(1, len(self.pieces), dtype=torch.bool)


def embedded_logits(network: Network, inputs: Mapping[str, Tensor]) -> Figure:
    """The network's logits as a function of its tokens' embeddings.

    The embedding layer's output is replaced while the network runs, as captum's
    `LayerIntegratedGradients` does it, so that architectures that scale embeddings or count
    positions by ids compute as ever.

    Args:
        network: In float32.
        inputs: What the base reads of one input, each [1, T].

    Returns:
        Of embeddings [B, T, H] the logits, [B, C] or [B, T, C].
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
    """Embeddings [T, H] of token ids [T]."""
    layer: Any = network.backbone.get_input_embeddings()
    with torch.no_grad():
        found: Tensor = layer(ids[None])[0]
    return found


def blanked(
    network: Network, ids: Tensor, embedded: Tensor, pieces: tuple[Piece, ...], blank_id: int
) -> Tensor:
    """Embeddings with every piece blank, [T, H].

    Args:
        network: The network.
        ids: The input's, [T].
        embedded: Of these, [T, H].
        pieces: Of the input.
        blank_id: Token id whose embedding stands for nothing.
    """
    filled = ids.clone()
    for piece in pieces:
        filled[list(piece.tokens)] = blank_id
    places = torch.zeros(len(ids), dtype=torch.bool)
    for piece in pieces:
        places[list(piece.tokens)] = True
    return torch.where(places[:, None], embeddings_of(network, filled), embedded)
