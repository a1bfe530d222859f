"""Puts trained vectors before a text, with peft: prompt tuning and prefix tuning.

Lester et al. 2021 (arXiv:2104.08691) and Li & Liang 2021 (arXiv:2101.00190).

    prompt    v vectors before the embeddings of the first layer
    prefix    v keys and values before those of each layer's attention

A prompt's initial values are the embeddings of random tokens, which the paper found better than
random values. A prefix is initially near zero, without the paper's reparametrization, because that
network's parameters would be trained and noised too.

Shapes: v vectors, H hidden units.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import peft
import torch
from torch import nn
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.models.config import LoraConfig
from cloister.seeds import child_seed

# Standard deviation of a prefix's initial values, as for weights in transformers.
DEVIATION = 0.02
# Errors of networks that accept no embeddings in place of ids, or no given keys.
_CANNOT = (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError, IndexError)


def attach_prompt(
    model: PreTrainedModel, config: LoraConfig, task: str, seed: int
) -> peft.PeftModel:
    """Attaches vectors before a base's texts.

    Args:
        model: The frozen base.
        config: The `[lora]` section, of method `prompt` or `prefix`.
        task: peft's task type.
        seed: The study's seed.

    Raises:
        UsageError: The base accepts none, or they do not change its outputs.
    """
    about: Any = model.config.get_text_config()
    kind: Any = peft.PromptTuningConfig if config.method == "prompt" else peft.PrefixTuningConfig
    try:
        adapted = peft.get_peft_model(
            model,
            kind(
                task_type=task,
                num_virtual_tokens=config.virtual_tokens,
                # DistilBERT and others have names for them that peft does not know.
                token_dim=int(about.hidden_size),
                num_layers=int(about.num_hidden_layers),
                num_attention_heads=int(getattr(about, "num_attention_heads", 1)),
            ),
        )
        assert isinstance(adapted, peft.PeftModel)
        for parameter in adapted.base_model.parameters():
            parameter.requires_grad_(False)
        if config.method == "prompt":
            adapted.get_prompt = partial(_of_each_record, adapted)  # type: ignore[method-assign]
        _start(adapted, config, seed)
        works = _changes(adapted)
    except _CANNOT as error:
        raise _refused(model, config, str(error).strip() or type(error).__name__) from error
    if not works:
        raise _refused(model, config, "its outputs do not depend on them")
    return adapted


def is_prompt(name: str) -> bool:
    """Returns whether a parameter is one of these vectors."""
    return "prompt_encoder." in name


def _of_each_record(adapted: peft.PeftModel, batch_size: int, **_: Any) -> torch.Tensor:
    """Looks the prompt up once for each record, [B, v, H].

    peft looks it up once and repeats the result, so that the records' gradients would already be
    summed, and could not be clipped one by one.
    """
    rows = adapted.prompt_tokens["default"].to(_vectors(adapted).device)
    found: torch.Tensor = adapted.prompt_encoder["default"](rows.expand(batch_size, -1))
    return found


def _refused(model: PreTrainedModel, config: LoraConfig, why: str) -> UsageError:
    what = {
        "prompt": "puts vectors before the embeddings of a text",
        "prefix": "puts keys and values before those of each layer's attention",
    }[str(config.method)]
    return UsageError(
        f"lora.method: {config.method} {what}, which a {model.config.model_type} does not accept "
        f"from peft ({why.splitlines()[0]}); choose another method or base"
    )


def _start(adapted: peft.PeftModel, config: LoraConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(child_seed(seed, "lora", str(config.method)))
    weight = _vectors(adapted)
    with torch.no_grad():
        if config.method == "prompt":
            base: Any = adapted.get_base_model()
            table = base.get_input_embeddings()
            ids = torch.randint(int(table.weight.shape[0]), (len(weight),), generator=generator)
            weight.copy_(table(ids.to(table.weight.device)))
        else:
            weight.copy_(torch.randn(weight.shape, generator=generator) * DEVIATION)


def _changes(adapted: peft.PeftModel) -> bool:
    """Returns whether the base's outputs for two tokens change with the vectors."""
    weight = _vectors(adapted)
    ids = torch.zeros((1, 2), dtype=torch.long, device=adapted.device)
    before = weight.detach().clone()

    def states() -> torch.Tensor:
        output = adapted(input_ids=ids, attention_mask=torch.ones_like(ids))
        found: torch.Tensor = output.get("logits", output.get("last_hidden_state"))
        return found[:, -2:]

    with torch.no_grad():
        one = states()
        weight.add_(1.0)
        other = states()
        weight.copy_(before)
    return not torch.equal(one, other)


def _vectors(adapted: peft.PeftModel) -> nn.Parameter:
    (weight,) = adapted.prompt_encoder.parameters()
    return weight
