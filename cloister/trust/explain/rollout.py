"""Computes attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928), as an illustration.

    R = Aₗ Aₗ₋₁ … A₁,   Aₗ = ½ (mean over heads of layer l's attention) + ½ I

It shows from which tokens attention reaches the place where the answer is read. It does not depend
on the answer, so it has no sign and does not measure the contribution of a word.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cloister.models.network import Network
from cloister.trust.explain.gradients import Attribution
from cloister.trust.explain.reading import ModelReading


def attention_rollout(network: Network, reading: ModelReading) -> Attribution | str:
    """Returns the share of attention that flows from each piece to the place of the answer.

    Args:
        network: The network.
        reading: The input and figure that are explained.

    Returns:
        Shares of at most 1; or the reason why the network has none.
    """
    if network.is_prompted and not network.leading:
        return "its prefix is inside the layers' attention"
    base = network.base
    before = base.config._attn_implementation
    try:
        base.set_attn_implementation("eager")  # the others keep no weights
        with torch.no_grad():
            output = network.backbone(**reading.inputs, output_attentions=True)
    except ValueError:  # of an architecture that has no such implementation
        return "its layers return no attention weights"
    finally:
        base.set_attn_implementation(before)
    layers = getattr(output, "attentions", None) or ()
    length = len(reading.embedded) + network.leading
    shape = (length, length)
    if not layers or any(one is None or one.shape[-2:] != shape for one in layers):
        return "its layers return no attention weights"
    flow = rolled([one[0].float().mean(dim=0) for one in layers])
    tokens = reading.read_at @ flow[network.leading :, network.leading :]
    values = [tokens[list(piece.tokens)].sum() for piece in reading.pieces]
    return Attribution(torch.stack(values))


def rolled(layers: list[Tensor]) -> Tensor:
    """Returns the product of the layers' attention, each mixed with the identity.

    Args:
        layers: The layers' attention, the first layer first, each [T, T] with rows that sum to 1.

    Returns:
        A matrix [T, T] whose rows sum to 1.
    """
    flow = torch.eye(len(layers[0]))
    for layer in layers:
        flow = (0.5 * layer + 0.5 * torch.eye(len(layer))) @ flow
    return flow
