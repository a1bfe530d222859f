"""Writes base, adapter and head as one folder that transformers loads without Cloister."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
)

from cloister.export.forms.classifier_head import classifier, head_problem, plain_state
from cloister.export.forms.finished import Finished, Logits
from cloister.models.pretrained import from_folder, quiet
from cloister.tasks.chat import CausalChat
from cloister.training.generation import reply_ends

_KINDS: Mapping[str, Any] = {
    "messages": AutoModelForCausalLM,
    "tokens": AutoModelForTokenClassification,
}


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if not finished.can_merge:
        return unmergeable(finished)
    return None if finished.network.head is None else head_problem(finished)


def unmergeable(finished: Finished) -> str:
    """Returns the sentence that explains why an adapter cannot be merged into its base."""
    method = finished.about.lora.method
    what = "biases of their own" if method == "bitfit" else "vectors before each text"
    return f"an adapter of {method} is {what}, which have no place in the base's weights"


def write(finished: Finished, folder: Path) -> None:
    """Writes weights, configuration and tokenizer."""
    task, network = finished.task, finished.network
    finished.merge()
    save_tokenizer(finished, folder)
    if network.head is not None:
        with quiet():
            classifier(finished).save_pretrained(folder)
        return
    save_base(finished, folder)
    assert isinstance(task, CausalChat)
    settings = copy.deepcopy(network.base.generation_config)
    assert settings is not None
    ends, _ = reply_ends(network, task)
    settings.pad_token_id = finished.workspace.pad_id
    settings.eos_token_id = list(ends) or settings.eos_token_id
    settings.save_pretrained(folder)


def save_base(finished: Finished, folder: Path) -> None:
    """Writes the base with its adapter merged, without a head."""
    base: Any = finished.network.base
    kept = base.config
    base.config = copy.deepcopy(kept)
    base.config.dtype = torch.float32
    try:
        with quiet():
            base.save_pretrained(folder, state_dict=plain_state(base))
    finally:
        base.config = kept


def save_tokenizer(finished: Finished, folder: Path) -> None:
    """Writes the base's tokenizer with the study's `max_length`; a chat's with its template."""
    task = finished.task
    tokenizer: PreTrainedTokenizerBase = copy.deepcopy(finished.workspace.tokenizer)
    tokenizer.model_max_length = task.max_length
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(finished.workspace.pad_id)
    if isinstance(task, CausalChat):
        tokenizer.chat_template = task.template.text
        tokenizer.padding_side = "left"  # generation appends to the right end of each row
        tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(str(folder))


def read(finished: Finished, folder: Path) -> Logits:
    """Returns the function that transformers computes from the written folder."""
    kind = _KINDS.get(finished.task.record_kind, AutoModelForSequenceClassification)
    with quiet():
        model: Any = from_folder(kind, folder).eval()

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(**inputs).logits
        return found

    return logits
