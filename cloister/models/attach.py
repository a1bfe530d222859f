"""Attaches the adapters of the `[lora]` section to a base, with peft."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.adapted_modules import default_targets, target_names
from cloister.models.biases import attach_biases, biased_modules, is_bias
from cloister.models.config import LoraConfig
from cloister.models.lora import attach_lora, factor
from cloister.models.prompts import attach_prompt, is_prompt
from cloister.models.scalings import attach_scalings, is_scaling, scaled_modules
from cloister.models.token_rows import give_rows_their_records

# Which factors of LoRA train, by `lora.train` (`models.lora.factor`).
_FACTORS = {
    "both": {"a", "b", "other"},
    "alternate": {"a", "b"},
    "b": {"b"},
    "b-moving": {"b"},
    "b-kept": {"a", "b"},
    "none": set(),
}
# The modules of a base that get an adapter by default, for other methods than LoRA.
_DEFAULTS = {"bitfit": biased_modules, "ia3": scaled_modules}


def attach(model: PreTrainedModel, config: LoraConfig, seed: int) -> peft.PeftModel:
    """Attaches adapters to a base.

    Args:
        model: The frozen base.
        config: The `[lora]` section.
        seed: The study's seed, for random initial values.

    Raises:
        UsageError: A target module or layer does not exist or cannot be adapted, or a rank is
            larger than every module's.
    """
    causal = model.get_output_embeddings() is not None
    task = "CAUSAL_LM" if causal else "FEATURE_EXTRACTION"
    if config.is_prompt:
        with _unwarned():
            return attach_prompt(model, config, task, seed)
    targets = target_names(model, config, _DEFAULTS.get(config.method or "", default_targets))
    with _unwarned():
        try:
            if config.method == "bitfit":
                adapted = attach_biases(model, config, targets, task)
            elif config.method == "ia3":
                adapted = attach_scalings(model, config, targets, task)
            else:
                adapted = attach_lora(model, config, targets, task, seed)
        except ValueError as error:  # peft cannot adapt one of them
            raise UsageError(
                f"lora.target_modules: {', '.join(targets)} cannot be adapted in "
                f"{model.config.model_type} ({str(error).splitlines()[0]}); name others"
            ) from error
    give_rows_their_records(adapted)
    return adapted


@contextmanager
def _unwarned() -> Iterator[None]:
    """Silences peft's warnings that need no action."""
    with warnings.catch_warnings():
        # It sets fan_in_fan_out itself for GPT-2's Conv1D, which is correct.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # It reads a property of transformers by its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


def adapter_trains(config: LoraConfig) -> Callable[[str], bool]:
    """Returns a function that tells, by its name, whether an adapter's parameter is trained."""
    if config.method == "bitfit":
        return is_bias
    if config.method == "ia3":
        return is_scaling
    if config.is_prompt:
        return is_prompt
    factors = _FACTORS[config.train]
    return lambda name: factor(name) in factors


def is_adapted(layer: nn.Module) -> bool:
    """Returns whether a layer, or a part of it, has an adapter."""
    return any(isinstance(module, BaseTunerLayer) for module in layer.modules())
