"""Merges an adapter and its residual into one PEFT adapter, which programs without residuals load.

B A + B' A' = U Σ Vᵀ    has at most rank min(r + r', full rank of the adapted modules), so a merged
adapter of that rank loses nothing.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.models.config import LoraConfig
from cloister.models.lora import alpha_at, full_rank
from cloister.models.network import Network
from cloister.strategies.low_rank import product_of, tensors_of, total


def stacked_config(network: Network, lora: LoraConfig) -> LoraConfig:
    """Returns the `[lora]` section of the stacked adapter: a larger rank, the same scale."""
    rank = min(lora.r + lora.residual, full_rank(network.backbone))
    return replace(lora, r=rank, alpha=alpha_at(lora, rank), residual=0)


def save_stacked(folder: Path, network: Network, adapter: Adapter, lora: LoraConfig) -> None:
    """Writes adapter and residual as one PEFT adapter.

    Args:
        folder: Made if absent.
        network: Its PEFT configuration is written, with the merged adapter's rank.
        adapter: All pairs, with their residuals.
        lora: The section that `stacked_config` returned.
    """
    tensors: dict[str, torch.Tensor] = {}
    for pair in find_pairs(adapter):
        if pair.residual.left in adapter:
            both = total([product_of(pair, adapter), product_of(pair.residual, adapter)])
            for name, array in tensors_of(pair, both.truncated(lora.r)).items():
                tensors[name.removeprefix("backbone.")] = torch.from_numpy(array.copy())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config: Any = copy.deepcopy(network.backbone.peft_config["default"])
    config.r, config.lora_alpha, config.inference_mode = lora.r, lora.alpha, True
    config.save_pretrained(str(folder))
