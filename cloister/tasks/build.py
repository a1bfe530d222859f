"""From a recipe's `[task]` to a task."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from cloister.data.records import Record, RecordKind, TextRecord, TokenRecord
from cloister.errors import UsageError
from cloister.tasks.chat import PLAIN_TEMPLATE, CausalChat
from cloister.tasks.config import RECORDS, TaskConfig, TaskKind
from cloister.tasks.sequence import SequenceClassification
from cloister.tasks.task import Task
from cloister.tasks.template import ChatTemplate
from cloister.tasks.token import TokenClassification, bio_tags
from cloister.tasks.words import check_offsets


def record_kind(kind: TaskKind) -> RecordKind:
    """Which records a kind of task reads."""
    return RECORDS[kind]


def labels_of(records: Iterable[Record], kind: RecordKind) -> tuple[str, ...]:
    """Class names or entity types that occur, sorted; none for conversations."""
    labels: set[str] = set()
    for record in records:
        if isinstance(record, TextRecord):
            labels.add(record.label)
        elif isinstance(record, TokenRecord):
            labels |= {tag[2:] for tag in record.tags if tag != "O"}
    return tuple(sorted(labels))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token id of padding: the tokenizer's own, else that of its end of text, else 0."""
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
        UsageError: There are too few labels, the tokenizer cannot serve the task, or the template
            says what it must not.
    """
    pad_id = padding_id(tokenizer)
    if config.kind != "sequence-classification" and not tokenizer.is_fast:
        raise UsageError(
            f"task.kind: {config.kind} needs a fast tokenizer, which says where in the text its "
            "tokens are; choose a base model that has one"
        )
    if config.kind == "causal-lm":
        return CausalChat(tokenizer, chat_template(config, tokenizer), config.max_length, pad_id)
    if config.kind == "token-classification":
        if not labels:
            raise UsageError("task.labels: no entity type given or found in the training set")
        check_offsets(tokenizer)
        return TokenClassification(bio_tags(labels), tokenizer, config.max_length, pad_id)
    if len(labels) < 2:
        raise UsageError(f"task.labels: {len(labels)} given or found; at least 2 are needed")
    return SequenceClassification(labels, tokenizer, config.max_length, pad_id)


def chat_template(config: TaskConfig, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The recipe's template, else the tokenizer's own, else the plain one.

    Raises:
        UsageError: It cannot be used.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several by name, for tools or retrieval
        own = own.get("default")
    if config.chat_template and config.chat_template != own:
        return ChatTemplate(config.chat_template)
    return ChatTemplate(str(own), is_own=True) if own else ChatTemplate(PLAIN_TEMPLATE)
