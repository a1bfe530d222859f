"""Builds a task from a recipe's `[task]` section."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from cloister.data.records import Record, RecordKind
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import labels_in, make_plugin, plugin_records
from cloister.tasks.registry import BUILT_IN

if TYPE_CHECKING:  # a process that only reads records loads no torch
    from transformers import PreTrainedTokenizerBase

    from cloister.tasks.task import Task


def record_kind(kind: str) -> RecordKind:
    """Returns the kind of records that a task reads; imports a plug-in.

    Raises:
        UsageError: The plug-in cannot be used.
    """
    return BUILT_IN[kind].records if kind in BUILT_IN else plugin_records(kind)


def labels_of(records: Iterable[Record], kind: str) -> tuple[str, ...]:
    """Returns the class names or entity types that occur, sorted; empty for conversations.

    Args:
        records: Public records, or a simulation's own; never private ones.
        kind: The task's kind, or which records a built-in one reads.
    """
    find = labels_in(kind)
    return tuple(sorted({label for record in records for label in find(record)}))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the token id for padding: padding token, otherwise end-of-text token, otherwise 0."""
    padding = tokenizer.pad_token_id
    return int(padding if padding is not None else tokenizer.eos_token_id or 0)


def build_task(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase
) -> Task:
    """Binds a task to its labels and tokenizer.

    Args:
        config: The `[task]` section.
        labels: Class names or entity types; ignored for a causal LM.
        tokenizer: The base's.

    Raises:
        UsageError: There are too few labels, the tokenizer cannot serve the task, the template
            breaks a rule of `template_rules`, or a plug-in is not installed in the version that the
            recipe states.
    """
    pad_id = padding_id(tokenizer)
    if config.plugin is not None:
        return make_plugin(config, labels, tokenizer, pad_id)
    module = importlib.import_module(BUILT_IN[config.kind].module)
    return cast("Task", module.make(config, labels, tokenizer, pad_id))
