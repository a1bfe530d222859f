"""Low-rank adapters on a frozen base, by peft, from a seeded start (Hu et al. 2022, 2106.09685).

A starts uniform in ±1/√(inputs), as peft's default does, but from the study's seed: every site
starts from the same A without its being sent. B starts at zero.
"""

from __future__ import annotations

import math
import re
import warnings

import peft
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.config import LoraConfig
from cloister.seeds import child_seed

# peft's name of the second pair of factors beside each adapter (`cloister.adapter.pairs`).
RESIDUAL = "residual"

# Query and value projections under the names that architectures give them, for those that peft's
# own table lacks.
_QUERY_VALUE = (
    ("q_lin", "v_lin"),
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q", "v"),
    ("Wqkv",),
    ("qkv_proj",),
    ("query_key_value",),
    ("in_proj", "x_proj"),  # Mamba has no queries: what enters a mixer, and its selection
)
# DeBERTa v2 and v3 put relative positions, which all records share, through the query and key
# projections too (`share_att_key`), so that no record's gradient can be told apart there.
_SHARED_QUERY = ("value_proj", "attention.output.dense")


def default_targets(model: PreTrainedModel) -> tuple[str, ...]:
    """Query and value projections of an architecture: peft's table, else known names.

    Where positions share the query's projection, it is the value's and the attention's output.

    Raises:
        UsageError: Neither knows it.
    """
    if getattr(model.config, "relative_attention", False) and getattr(
        model.config, "share_att_key", False
    ):
        return _SHARED_QUERY
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
    if isinstance(known, list):
        return tuple(known)
    present = set(_linear_names(model))
    for names in _QUERY_VALUE:
        if present.issuperset(names):
            return names
    raise UsageError(
        f"lora.target_modules: no default for {model.config.model_type}; "
        f"name some of {', '.join(sorted(present))}"
    )


def attach(model: PreTrainedModel, config: LoraConfig, seed: int) -> peft.PeftModel:
    """Puts adapters on a base.

    Args:
        model: The frozen base.
        config: Which adapters.
        seed: The study's seed, for A's start.

    Raises:
        UsageError: A target module or layer does not exist, or a rank is beyond all of them.
    """
    targets = config.target_modules or default_targets(model)
    missing = [t for t in targets if not any(_matches(n, t) for n, _ in model.named_modules())]
    if missing:
        raise UsageError(
            f"lora.target_modules: {', '.join(missing)} not in {model.config.model_type}; "
            f"its linear modules are {', '.join(sorted(set(_linear_names(model))))}"
        )
    if config.top_layers:
        targets = tuple(_in_top_layers(model, targets, config.top_layers))

    def of_rank(rank: int) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=rank,
            # peft only divides it by the rank: the residual is scaled as the adapter is.
            lora_alpha=alpha_at(config, rank),  # type: ignore[arg-type]
            use_rslora=bool(config.rslora),
            rank_pattern=config.ranks_by_module(),
            target_modules=list(targets),
            lora_dropout=0.0,
            use_dora=config.use_dora,
            task_type="CAUSAL_LM"
            if model.get_output_embeddings() is not None
            else "FEATURE_EXTRACTION",
        )

    with warnings.catch_warnings():
        # peft says that it sets fan_in_fan_out itself for GPT-2's Conv1D, which is what is wanted.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        # peft asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        # Said by `_check_ranks`, as an error.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        try:
            adapted = peft.get_peft_model(model, of_rank(config.r))
        except ValueError as error:  # peft's word that it cannot adapt one of them
            raise UsageError(
                f"lora.target_modules: {', '.join(targets)} cannot be adapted in "
                f"{model.config.model_type} ({str(error).splitlines()[0]}); name others"
            ) from error
        assert isinstance(adapted, peft.PeftModel)
        _check_ranks(adapted, config)
        if config.residual:
            adapted.add_adapter(RESIDUAL, of_rank(config.residual))
            adapted.base_model.set_adapter(["default", RESIDUAL])  # type: ignore[operator]
    _start_from_seed(adapted, seed)
    return adapted


def alpha_at(config: LoraConfig, rank: int) -> float:
    """The alpha with which adapters of another rank are scaled as those of rank `r` are."""
    share = rank / config.r
    return config.alpha * (math.sqrt(share) if config.rslora else share)


def _check_ranks(adapted: peft.PeftModel, config: LoraConfig) -> None:
    full, pattern = full_rank(adapted), config.ranks_by_module()
    given = {"r": config.r, "residual": config.residual}
    given["rank_pattern"] = max(pattern.values(), default=0)
    for name, rank in given.items():
        if full and rank > full:
            raise UsageError(
                f"lora.{name}: {rank} given; the adapted modules have a rank "
                f"of at most {full}: set lora.{name} no higher"
            )
    adapters = [name.partition(".lora_A.")[0] for name, _ in adapted.named_parameters()]
    unknown = [name for name in pattern if not any(_matches(a, name) for a in adapters)]
    if unknown:
        raise UsageError(
            f"lora.rank_pattern: {unknown[0]} is the end of no adapted module's name; name one "
            "that lora.target_modules and lora.top_layers adapt"
        )


def full_rank(adapted: peft.PeftModel) -> int:
    """The largest rank that a product of factors can have on an adapted module; 0 where none is
    linear, which preflight refuses."""
    named = dict(adapted.named_parameters())
    return max(
        (
            min(parameter.shape[1], named[name.replace("lora_A", "lora_B")].shape[0])
            for name, parameter in named.items()
            if "lora_A" in name and parameter.dim() == 2
        ),
        default=0,
    )


def is_residual(name: str) -> bool:
    """Whether a parameter is a factor of a residual, which never trains."""
    return f".{RESIDUAL}." in name


def factor(name: str) -> str | None:
    """Which factor a parameter belongs to: `a`, `b`, `other` (DoRA's magnitudes), or None where
    it is not one that may train."""
    if "lora_" not in name or is_residual(name):
        return None
    if "lora_A" in name or "lora_embedding_A" in name:
        return "a"
    return "b" if "lora_B" in name or "lora_embedding_B" in name else "other"


def _start_from_seed(adapted: peft.PeftModel, seed: int) -> None:
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if is_residual(name):
                parameter.zero_()
            if factor(name) == "a":
                generator = torch.Generator().manual_seed(child_seed(seed, "lora", name))
                start = torch.empty(parameter.shape)
                limit = 1 / math.sqrt(parameter.shape[-1])
                parameter.copy_(start.uniform_(-limit, limit, generator=generator))


def _in_top_layers(model: PreTrainedModel, targets: tuple[str, ...], count: int) -> list[str]:
    """Full names of the targets in the last `count` layers."""
    layers = int(model.config.num_hidden_layers)
    if getattr(model.config, "num_hidden_groups", layers) < layers:
        raise UsageError(
            f"lora.top_layers: the layers of {model.config.model_type} share their weights, so "
            'none is the top one, and no record\'s gradient is exact; set lora.train = "none" and '
            "lora.top_layers = 0 (the head alone), or choose another base"
        )
    if count > layers:
        raise UsageError(f"lora.top_layers: {count} given; the base has {layers} layers")
    chosen = []
    for name, _ in model.named_modules():
        layer = re.search(r"(?:^|\.)(\d+)\.", name)
        if layer and int(layer[1]) >= layers - count and any(_matches(name, t) for t in targets):
            chosen.append(name)
    if not chosen:
        raise UsageError(
            f"lora.target_modules: {', '.join(targets)} are not in the top {count} layers; "
            "set lora.top_layers = 0 to look in the whole base"
        )
    return chosen


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _linear_names(model: nn.Module) -> list[str]:
    return [
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
