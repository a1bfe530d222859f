"""A network that is left as it was, without a copy of its base.

What trains is small and is copied; of what is frozen a checksum is taken, so that a proof of a base
of 28 GB does not need 28 GB more.

Math:
    The checksum of a tensor is Σ_i bits_i · (2i + 1) mod 2⁶⁴ over its values' bits. The factors are
    odd, so no single value can change without it; it is for what a mistake changes (tied weights,
    an optimizer that has too many), not for what somebody hides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cloister.models.network import Network, adapter_name, trained_parameters

# Values of a part of a checksum: three times 8 MiB of integers beside the tensor.
PART = 2**20
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def restored(network: Network, names: frozenset[str] = frozenset()) -> Iterator[None]:
    """Puts back the values of what trains, on entry or under these names, and takes gradients away.

    Args:
        network: Any.
        names: Of parameters, as they travel, that may be changed within it though they do not
            train now.
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
    """Of each frozen parameter, by its own name."""
    return {
        name: checksum(parameter.detach())
        for name, parameter in network.named_parameters()
        if not parameter.requires_grad
    }


def checksum(tensor: Tensor) -> int:
    """Of a tensor's values, bit for bit; it takes memory for `PART` of them."""
    flat = tensor.reshape(-1)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(flat), PART):
        bits = flat[start : start + PART].view(_BITS[tensor.element_size()]).to(torch.int64)
        place = torch.arange(start, start + len(bits), device=tensor.device).mul_(2).add_(1)
        total += (bits * place).sum()
    return int(total)
