"""BitFit: trains bias vectors of a base's linear modules (Ben Zaken et al. 2022, arXiv:2106.10199).

    y = W x + b + s β        s = alpha / r; β starts at zero and is all that trains

peft saves β as the bias of a LoRA adapter's B (`lora_bias`), whose two factors are zero here. So
any version of peft that has that field loads it, also on bases without biases. The norms' biases,
which the paper also trains, stay frozen: no adapter of peft can hold them.
"""

from __future__ import annotations

import warnings

import peft
import torch
from transformers import PreTrainedModel

from cloister.models.adapted_modules import all_linear, matches
from cloister.models.config import LoraConfig

# A bias of keys adds the same number to all scores of a query, which the softmax cancels: without
# rotary positions it has no gradient at all.
_KEYS = ("key", "k_proj", "k_lin", "k", "key_proj")
_END = ".lora_B.default.bias"


def biased_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Returns the full names of the modules that get a bias: the layers' linear ones, but not keys.

    Raises:
        UsageError: The base has no linear module that a text goes through once.
    """
    return tuple(name for name in all_linear(model) if not any(matches(name, key) for key in _KEYS))


def attach_biases(
    model: PreTrainedModel, config: LoraConfig, targets: tuple[str, ...], task: str
) -> peft.PeftModel:
    """Attaches a bias, initially zero, to each of the modules.

    Args:
        model: The frozen base.
        config: The `[lora]` section.
        targets: The modules, in the form that peft takes.
        task: peft's task type.

    Raises:
        ValueError: peft cannot adapt one of them.
    """
    with warnings.catch_warnings():
        # peft warns that it cannot merge the bias into a module without one; it is never merged.
        warnings.filterwarnings("ignore", message="`lora_bias=True` was passed")
        adapted = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=1,
                lora_alpha=config.alpha / config.r,  # type: ignore[arg-type]  # peft multiplies by it
                target_modules=list(targets),
                lora_bias=True,
                task_type=task,
            ),
        )
    assert isinstance(adapted, peft.PeftModel)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    return adapted


def is_bias(name: str) -> bool:
    """Returns whether a parameter is one of the biases."""
    return name.endswith((_END, _END.replace(".default", "")))
