"""Low-rank adapters on a frozen base, by peft, from a seeded start (Hu et al. 2022, 2106.09685).

A starts uniform in ±1/√(inputs), as peft's default does, but from the study's seed: every site
starts from the same A without its being sent. B starts at zero.
"""

from __future__ import annotations

import math
import warnings

import peft
import torch
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.config import LoraConfig
from cloister.models.targets import matches
from cloister.seeds import child_seed

# peft's name of the second pair of factors beside each adapter (`cloister.adapter.pairs`).
RESIDUAL = "residual"


def attach_lora(
    model: PreTrainedModel, config: LoraConfig, targets: tuple[str, ...], task: str, seed: int
) -> peft.PeftModel:
    """Puts products of two factors on a base.

    Args:
        model: The frozen base.
        config: Which adapters.
        targets: The modules, as peft is given them.
        task: peft's word for what the base computes.
        seed: The study's seed, for A's start.

    Raises:
        UsageError: A rank is beyond all of the modules.
        ValueError: peft cannot adapt one of them.
    """

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
            task_type=task,
        )

    with warnings.catch_warnings():
        # Said by `_check_ranks`, as an error.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        adapted = peft.get_peft_model(model, of_rank(config.r))
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
    unknown = [name for name in pattern if not any(matches(a, name) for a in adapters)]
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
