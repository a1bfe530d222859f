"""IA³: trains vectors that scale keys, values and the inputs of feed-forwards, with peft.

Liu et al. 2022 (arXiv:2205.05638).

    y = l ⊙ (W x + b)  of keys and values        y = W (l ⊙ x) + b  of feed-forwards

l is initially one, which does not change the base's outputs. If queries, keys and values are one
module (GPT-2, Phi 3), its whole output is scaled, as in peft's own table.
"""

from __future__ import annotations

import peft
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as _PEFT_FEED_FORWARDS,
)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as _PEFT_TARGETS
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.adapted_modules import has_shared_query, matches
from cloister.models.config import LoraConfig

# Names of keys and values, or of the joint projection, in architectures that peft's own table
# lacks.
_KEY_VALUE = (
    ("k_lin", "v_lin"),
    ("k_proj", "v_proj"),
    ("key", "value"),
    ("k", "v"),
    ("key_proj", "value_proj"),
    ("Wqkv",),
    ("qkv_proj",),
    ("query_key_value",),
)
# Names of the second module of a feed-forward, in the same architectures.
_FEED_FORWARD = ("lin2", "down_proj", "output.dense", "fc2", "mlp.Wo", "wo", "dense_4h_to_h", "w2")


def scaled_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Returns the modules that IA³ scales in an architecture: from peft's table, else known names.

    Raises:
        UsageError: Neither has the architecture.
    """
    kind = model.config.model_type
    if has_shared_query(model):
        return ("value_proj", "output.dense")
    if (known := _PEFT_TARGETS.get(kind)) is not None:
        return tuple(known)
    names = [name for name, _ in model.named_modules()]

    def has(target: str) -> bool:
        return any(matches(name, target) for name in names)

    attention = next((group for group in _KEY_VALUE if all(map(has, group))), None)
    if attention is None:
        raise UsageError(
            f"lora.target_modules: IA³ scales keys, values and feed-forwards, but their names in a "
            f"{kind} are not known; name them, or choose another lora.method"
        )
    return (*attention, *[name for name in _FEED_FORWARD if has(name)][:1])


def attach_scalings(
    model: PreTrainedModel, config: LoraConfig, targets: tuple[str, ...], task: str
) -> peft.PeftModel:
    """Attaches a vector of ones to each of the modules.

    Args:
        model: The frozen base.
        config: The `[lora]` section.
        targets: The modules, in the form that peft takes.
        task: peft's task type.

    Raises:
        ValueError: peft cannot adapt one of them.
    """
    known = {*_FEED_FORWARD, *(_PEFT_FEED_FORWARDS.get(model.config.model_type) or ())}
    adapted = peft.get_peft_model(
        model,
        peft.IA3Config(
            target_modules=list(targets),
            feedforward_modules=[t for t in targets if any(matches(t, name) for name in known)],
            task_type=task,
        ),
    )
    assert isinstance(adapted, peft.PeftModel)
    return adapted


def is_scaling(name: str) -> bool:
    """Returns whether a parameter is one of the vectors."""
    return ".ia3_l" in name
