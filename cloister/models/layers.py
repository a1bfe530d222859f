"""Finds a base's list of layers, removes its upper layers, and turns its cache off."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from cloister.errors import UsageError


def layer_list(network: nn.Module, count: int) -> tuple[str, nn.ModuleList] | None:
    """Returns the list of a base's layers, with its name in the network.

    Args:
        network: The base, with or without adapters.
        count: The number of its layers.

    Returns:
        None if its layers are not one list of that many modules: they share their weights
        (ALBERT), or there are two lists (an encoder and a decoder).
    """
    lists = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    # A layer's own parts may be a list of the same length (T5 has two).
    outer = [n for n in lists if not any(n != o and n.startswith(f"{o}.") for o in lists)]
    return (outer[0], lists[outer[0]]) if len(outer) == 1 else None


def end_after(model: PreTrainedModel, layers: int) -> None:
    """Keeps a base's first layers and removes the others; the base's final norm stays.

    Args:
        model: The base, before it gets adapters; its layers and configuration are changed.
        layers: How many layers stay.

    Raises:
        UsageError: It has fewer layers, or its layers are not one list.
    """
    config: Any = model.config.get_text_config()
    count = int(config.num_hidden_layers)
    if layers > count:
        raise UsageError(f"model.layers: {layers} given; the base has {count} layers")
    found = layer_list(model, count)
    if found is None:
        raise UsageError(
            f"model.layers: the layers of {config.model_type} are not one list that can be cut; "
            "leave model.layers out, or choose another base"
        )
    name, blocks = found
    parent = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], blocks[:layers])
    # Forward passes, `lora.top_layers` and the cache of frozen layers use this number.
    config.num_hidden_layers = layers


def without_cache(backbone: nn.Module) -> dict[str, bool]:
    """Returns keywords of a forward pass that turn off a decoder's cache of keys and values.

    A layer that is recomputed would add its keys and values to that cache twice.

    Args:
        backbone: The base, with or without adapters.
    """
    base = backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone
    return {"use_cache": False} if _takes_cache(type(base).forward) else {}


@lru_cache(maxsize=64)
def _takes_cache(forward: Callable[..., object]) -> bool:
    return "use_cache" in signature(forward).parameters
