"""Attaches low-rank adapters to a base, with seeded values (Hu et al. 2022, arXiv:2106.09685).

A is initially uniform in ±1/√(inputs), as in peft, but from the study's seed: every site has the
same initial A although it is not sent. B is initially zero.
"""

from __future__ import annotations

import math
import warnings

import peft
import torch
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.adapted_modules import matches
from cloister.models.config import LoraConfig
from cloister.seeds import child_seed

# peft's name of the second pair of factors beside each adapter (`cloister.adapter.factor_pairs`).
RESIDUAL = "residual"


def attach_lora(
    model: PreTrainedModel, config: LoraConfig, targets: tuple[str, ...], task: str, seed: int
) -> peft.PeftModel:
    """Attaches products of two factors to a base.

    Args:
        model: The frozen base.
        config: The `[lora]` section.
        targets: The modules, in the form that peft takes.
        task: peft's task type.
        seed: The study's seed, for A's initial values.

    Raises:
        UsageError: A rank is larger than every module's.
        ValueError: peft cannot adapt one of them.
    """

    def of_rank(rank: int) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=rank,
            # peft divides it by the rank, so this gives the residual the adapter's scale.
            lora_alpha=alpha_at(config, rank),  # type: ignore[arg-type]
            use_rslora=bool(config.rslora),
            rank_pattern=config.ranks_by_module(),
            target_modules=list(targets),
            lora_dropout=0.0,
            use_dora=config.use_dora,
            task_type=task,
        )

    with warnings.catch_warnings():
        # `_check_ranks` raises an error for it.
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
    """Returns the alpha that gives adapters of another rank the scale of those of rank `r`."""
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
            f"lora.rank_pattern: {unknown[0]} matches no adapted module; name one that "
            "lora.target_modules and lora.top_layers adapt"
        )


def full_rank(adapted: peft.PeftModel) -> int:
    """Returns the largest rank that a product of factors can have on an adapted module.

    It is 0 if no module is linear; the preflight refuses such a study.
    """
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
    """Returns whether a parameter is a factor of a residual, which never trains."""
    return f".{RESIDUAL}." in name


def factor(name: str) -> str | None:
    """Returns a parameter's factor: `a`, `b`, `other` (DoRA's magnitudes); None: never trained."""
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
