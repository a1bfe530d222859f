"""Sets the weights nearest zero to zero (magnitude pruning; Han et al. 2015, arXiv:1506.02626).

Each matrix loses the same share. A dense runtime computes with zeros as with any number, so the
model is not faster, and its file is smaller only after compression.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cloister.models.network import Network

_CHUNK = 2**20


def prune_weights(network: Network, sparsity: float) -> Mapping[str, Tensor]:
    """Zeroes a share of each weight matrix of a base, but not embeddings, norms, biases and heads.

    Args:
        network: The network, without adapters; it is changed.
        sparsity: Share of each matrix, rounded down to whole weights.

    Returns:
        A mask for each matrix, by its name in the base: 1.0 at weights that stay, 0.0 elsewhere.
    """
    output = network.base.get_output_embeddings()
    masks = {}
    for name, module in network.base.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or module is output:
            continue
        weight = module.weight.data
        count = int(sparsity * weight.numel())
        mask = torch.ones(weight.numel())
        mask[weight.abs().flatten().topk(count, largest=False).indices] = 0.0
        masks[f"{name}.weight"] = mask.view_as(weight)
        weight.mul_(masks[f"{name}.weight"])
    return masks


def zeros(network: Network) -> float:
    """Returns the share of a network's weights that are zero."""
    count = sum(parameter.numel() for parameter in network.base.parameters())
    return sum(int((p == 0).sum()) for p in network.base.parameters()) / count


def zipped_bytes(folder: Path) -> int:
    """Returns the size of a folder's weights after gzip (zlib at its default level), in bytes."""
    total = 0
    for file in sorted(folder.rglob("*.safetensors")):
        packer = zlib.compressobj()
        with file.open("rb") as source:
            while chunk := source.read(_CHUNK):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return total
