"""Finds the modules of a base that get adapters: named, by default, or all linear ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.config import ALL_LINEAR, LoraConfig

# Names of query and value projections, in architectures that peft's own table lacks.
_QUERY_VALUE = (
    ("q_lin", "v_lin"),
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q", "v"),
    ("Wqkv",),
    ("qkv_proj",),
    ("query_key_value",),
    ("in_proj", "x_proj"),  # Mamba has no queries: the mixer's input, and its selection
)
# DeBERTa v2 and v3 put relative positions, which all records share, through the query and key
# projections too (`share_att_key`), so that no record's gradient can be told apart there.
_SHARED_QUERY = ("value_proj", "attention.output.dense")
# Modules of mixers whose weights a fused kernel reads directly (peft refuses to adapt them).
_MIXERS = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}
_READ_BESIDE = {"out_proj", "conv1d"}
# Records and tokens of the test texts that show which modules a base calls. The numbers differ, so
# that the two dimensions cannot be confused.
_RECORDS, _TOKENS = 2, 3


def target_names(
    model: PreTrainedModel,
    config: LoraConfig,
    default: Callable[[PreTrainedModel], tuple[str, ...]],
) -> tuple[str, ...]:
    """Returns the modules that get an adapter, in the form that peft takes.

    Args:
        model: The frozen base, without adapters.
        config: The `[lora]` section.
        default: Returns a base's modules, if the section names none.

    Raises:
        UsageError: A module or layer does not exist, or the architecture has no default.
    """
    if config.target_modules == (ALL_LINEAR,):
        targets = all_linear(model)
        return _in_top_layers(model, targets, config.top_layers) if config.top_layers else targets
    targets = config.target_modules or default(model)
    missing = [t for t in targets if not any(matches(n, t) for n, _ in model.named_modules())]
    if missing:
        raise UsageError(
            f"lora.target_modules: {', '.join(missing)} not in {model.config.model_type}; "
            f"its linear modules are {', '.join(sorted(set(_linear_names(model))))}"
        )
    return _in_top_layers(model, targets, config.top_layers) if config.top_layers else targets


def default_targets(model: PreTrainedModel) -> tuple[str, ...]:
    """Returns an architecture's query and value projections: from peft's table, else known names.

    If positions share the query's projection, the result is the value's and the attention's output.

    Raises:
        UsageError: Neither has the architecture.
    """
    kind = model.config.model_type
    if has_shared_query(model):
        return _SHARED_QUERY
    if kind == "mamba2":  # its selection is part of the input projection
        return ("in_proj",)
    if kind == "xlnet":
        raise UsageError(
            "lora.target_modules: no default for xlnet, whose attention has no linear modules and "
            "whose other modules have tokens as first dimension, so that no adapter has exact "
            'per-record gradients; train the head alone (lora.train = "none", lora.target_modules '
            '= ["layer_1"]), or choose another base'
        )
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    if isinstance(known, list):
        return tuple(known)
    present = set(_linear_names(model))
    for names in _QUERY_VALUE:
        if present.issuperset(names):
            return names
    raise UsageError(
        f"lora.target_modules: no default for {kind}; name some of {', '.join(sorted(present))}"
    )


def has_shared_query(model: PreTrainedModel) -> bool:
    """Returns whether relative positions go through the query and key projections too."""
    config: Any = model.config
    return bool(
        getattr(config, "relative_attention", False) and getattr(config, "share_att_key", False)
    )


def all_linear(model: PreTrainedModel) -> tuple[str, ...]:
    """Returns the full names of the layers' linear modules that a text goes through once.

    Modules outside of the layers (head, pooler) are left out, and so are modules that a forward
    pass does not call: mixers and routers use some weights without calling their module, so an
    adapter on it would change nothing.
    """
    calls: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if is_linear(module) and _layer(name) is not None:
            handles.append(module.register_forward_pre_hook(_counting(name, calls)))
    ids = torch.zeros((_RECORDS, _TOKENS), dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    skipped = _READ_BESIDE if model.config.model_type in _MIXERS else set()
    found = [n for n, count in calls.items() if count == 1 and n.rsplit(".", 1)[-1] not in skipped]
    if not found:
        raise UsageError(
            f"lora.target_modules: {ALL_LINEAR} given, but {model.config.model_type} has no linear "
            "module that a text goes through once; name modules, or choose another base"
        )
    return tuple(found)


def _counting(name: str, calls: dict[str, int]) -> Callable[[nn.Module, tuple[object, ...]], None]:
    def count(_: nn.Module, arguments: tuple[object, ...]) -> None:
        first = arguments[0] if arguments else None
        is_ours = isinstance(first, Tensor) and len(first) in (_RECORDS, _RECORDS * _TOKENS)
        # A call with other dimensions makes the count wrong on purpose.
        calls[name] = calls.get(name, 0) + (1 if is_ours else 2)

    return count


def _in_top_layers(model: PreTrainedModel, targets: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Returns the full names of the targets in the last `count` layers."""
    layers = int(model.config.num_hidden_layers)
    if getattr(model.config, "num_hidden_groups", layers) < layers:
        raise UsageError(
            f"lora.top_layers: the layers of {model.config.model_type} share their weights, so "
            'there is no top layer, and no exact per-record gradient; set lora.train = "none" and '
            "lora.top_layers = 0 (the head alone), or choose another base"
        )
    if count > layers:
        raise UsageError(f"lora.top_layers: {count} given; the base has {layers} layers")
    chosen = []
    for name, _ in model.named_modules():
        layer = _layer(name)
        if layer is not None and layer >= layers - count and any(matches(name, t) for t in targets):
            chosen.append(name)
    if not chosen:
        raise UsageError(
            f"lora.target_modules: {', '.join(targets)} are not in the top {count} layers; "
            "set lora.top_layers = 0 to look in the whole base"
        )
    return tuple(chosen)


def _layer(name: str) -> int | None:
    """Returns the number of the layer that contains a module; None: it is in no layer."""
    found = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(found[1]) if found else None


def matches(name: str, target: str) -> bool:
    """Returns whether a target matches a module: by its full name, or by the end of it."""
    return name == target or name.endswith(f".{target}")


def is_linear(module: nn.Module) -> bool:
    """Returns whether a module is a matrix product: `nn.Linear`, a quantized one, or `Conv1D`."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _linear_names(model: nn.Module) -> list[str]:
    return [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if is_linear(module)]
