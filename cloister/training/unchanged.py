"""Restores a network after trials, without a copy of its base.

Trained tensors are small and are copied. Frozen ones only get a checksum, so that a proof with a
base of 28 GB does not need 28 GB more.

Math:
    The checksum of a tensor is Σ_i bits_i · (2i + 1) mod 2⁶⁴ over its values' bits. The factors are
    odd, so no single value can change unnoticed. It finds mistakes (tied weights, an optimizer with
    too many parameters), not attacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cloister.models.network import Network, adapter_name, trained_parameters

# Values per part of a checksum; the parts need three times 8 MiB besides the tensor.
PART = 2**20
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def restored(network: Network, names: frozenset[str] = frozenset()) -> Iterator[None]:
    """Restores the values of trained tensors and of `names`, and removes gradients.

    Args:
        network: Any network.
        names: Further parameters, by their names in messages, that may be changed although they do
            not train now.
    """
    trained = names | {name for name, _ in trained_parameters(network)}
    before = {
        parameter: parameter.detach().clone()
        for name, parameter in network.named_parameters()
        if adapter_name(name) in trained
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)
            for parameter in network.parameters():
                parameter.grad = None


def checksums(network: nn.Module) -> dict[str, int]:
    """The checksum of each frozen parameter, by its own name."""
    return {
        name: checksum(parameter.detach())
        for name, parameter in network.named_parameters()
        if not parameter.requires_grad
    }


def checksum(tensor: Tensor) -> int:
    """The checksum of a tensor's bits; it needs memory for `PART` values at a time."""
    flat = tensor.reshape(-1)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(flat), PART):
        bits = flat[start : start + PART].view(_BITS[tensor.element_size()]).to(torch.int64)
        place = torch.arange(start, start + len(bits), device=tensor.device).mul_(2).add_(1)
        total += (bits * place).sum()
    return int(total)
