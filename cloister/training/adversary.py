"""Moves each record's embeddings one step up its own loss, before the pass that is trained on.

Math:
    e′_i = e_i + ρ ‖e_i‖₂ · g_i / ‖g_i‖₂,    g_i = ∂L_i(e_i) / ∂e_i

over all of a record's tokens at once: the fast gradient method in embedding space (Miyato, Dai and
Goodfellow 2017, arXiv:1605.07725, section 3, equation 5). They scale embeddings to unit variance;
here the step is a part ρ of the record's own length, so that one ρ fits every base. The gradient
that trains is that of L_i(e′_i) alone, as in Madry et al. 2018 (arXiv:1706.06083), so every layer
is still called once in the pass that is clipped.

e′_i depends on record i and the adapter only. So the trained gradient does too, and clipping it
bounds it as before: ε stays the same.

Shapes: B records, T tokens, H values of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cloister.errors import PreflightError
from cloister.models.network import Network, trained_parameters
from cloister.privacy.row_blocks import sum_in_halves


@contextmanager
def moved_embeddings(
    network: Network, mask: Tensor, losses: Callable[[], Tensor]
) -> Iterator[None]:
    """Makes the network read moved embeddings within the context: each moved up its record's loss.

    Args:
        network: The network; its `adversarial_radius` is ρ.
        mask: The batch's attention mask, [B, T].
        losses: Computes each record's loss, [B], by one forward pass.

    Raises:
        PreflightError: The base does not call its embedding layer exactly once.
        RuntimeError: The loss does not depend on a [B, T, H] from that layer, which a plug-in's
            records may cause: their units then contribute zero.

    Guarantees:
        A record's move depends on its own row only. Its length is at most ρ times that of the
        record's embeddings, up to rounding. A record whose loss has no gradient stays where it is;
        one whose gradient is not finite gets embeddings that are not finite, so that it contributes
        zero.
    """
    moves = _moves(network, mask.to(network.device), losses)
    with _embedding_output(network, lambda embedded: embedded + moves.to(embedded.dtype)):
        yield


def _moves(network: Network, mask: Tensor, losses: Callable[[], Tensor]) -> Tensor:
    """Returns the move of each embedding, float32 [B, T, H]; 0 at padding."""
    seen: list[Tensor] = []

    def leaf(embedded: Tensor) -> Tensor:
        seen.append(embedded.detach().requires_grad_(True))
        return seen[-1]

    with network.unseen(), _frozen(network), _embedding_output(network, leaf):
        total = losses().sum()
        if len(seen) != 1:
            raise PreflightError(
                "training.adversarial_radius: this base does not read the batch's embeddings "
                f"once in a pass (it called their layer {len(seen)} times), so a record's move "
                "cannot be shown to be its own; leave the setting out, or choose another base"
            )
        if seen[0].shape[:2] != mask.shape or not total.requires_grad:
            # A plug-in's batch or loss of certain records may be so. An error of the study would
            # end the round, and so tell that they are there (`training.gradients`).
            raise RuntimeError("the loss does not depend on the embeddings of the batch's tokens")
        (gradient,) = torch.autograd.grad(total, seen[0])
    is_token = mask.bool()[:, :, None]
    slope = gradient.float().masked_fill(~is_token, 0.0)
    own = seen[0].detach().float().masked_fill(~is_token, 0.0)
    # Scaled by its largest value first, because squares of small gradients vanish in float32. A
    # maximum has the same bits in any order.
    largest = slope.abs().amax(dim=(1, 2))
    slope = slope / torch.where(largest == 0, torch.ones_like(largest), largest)[:, None, None]
    length = _lengths(slope)
    factor = network.adversarial_radius * _lengths(own)
    factor = factor / torch.where(length == 0, torch.ones_like(length), length)
    return slope * factor[:, None, None]


def _lengths(rows: Tensor) -> Tensor:
    """Returns Euclidean lengths of rows [B, T, H], [B]; other rows change no bit of a row's."""
    return sum_in_halves(rows.square().flatten(1)).sqrt()


@contextmanager
def _embedding_output(network: Network, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the output of the base's embedding layer by a function of it."""
    layer: Any = network.backbone.get_input_embeddings()
    handle = layer.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _frozen(network: Network) -> Iterator[None]:
    """Turns off the parameters' gradients, so that no per-record gradient is computed here."""
    trained = [parameter for _, parameter in trained_parameters(network)]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
