"""Checks the rules that every task must keep: a record's loss depends on that record alone.

Logits are made up, so no base is needed. Properties that only a network can show (gradients of
parameters, equal bits on a machine) are tested by each site's preflight and proof before anything
is charged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cloister.data.records import (
    POOLED,
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.errors import UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import named
from cloister.tasks.task import Batch, BatchShape, Example, Task

MAX_LENGTH = 32
# Losses of one row among others: the same float32 operations in another shape of tensor differ by
# a few times 2⁻²⁴; a mean over the batch moves them by a tenth and more.
CLOSE = 1e-5
# As large as logits get in training; a loss that overflows or divides by zero does so here.
EXTREMES = (0.0, 1e4, -1e4)


@dataclass(frozen=True)
class Case:
    """A task with encoded records and made-up logits.

    Attributes:
        task: The task with its labels and tokenizer.
        again: A second object of the same task.
        records: At least two, of different length.
        examples: The records, encoded in order by `task`.
        outputs: C, the number of outputs.
    """

    task: Task
    again: Task
    records: Sequence[Record]
    examples: Sequence[Example]
    outputs: int

    def logits(self, batch: Batch, seed: int = 0) -> Tensor:
        """Draws normal logits, [B, C] or [B, T, C], which are the same for any padding."""
        generator = torch.Generator().manual_seed(seed)
        size = max(int(batch.input_ids.max()) + 1, 1000)
        logits = torch.randn(size, self.outputs, generator=generator)[batch.input_ids]
        if self.task.record_kind not in POOLED:
            return logits
        return (logits * batch.attention_mask[..., None]).sum(dim=1)

    def losses(self, group: Sequence[Example]) -> Tensor:
        """Computes the losses of some examples in one batch."""
        batch = self.task.collate(group)
        return self.task.record_losses(self.logits(batch), batch)


def check_task(
    task: type | str,
    records: Sequence[Record],
    *,
    labels: Sequence[str] | None = None,
    max_length: int = MAX_LENGTH,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: object,
) -> None:
    """Checks a task against every rule.

    Args:
        task: A class, or the kind of a built-in task.
        records: At least two that differ in length and, where possible, in label.
        labels: The study's labels; None: those of the records.
        max_length: `task.max_length`.
        tokenizer: A base's tokenizer; None: one whose tokens are the records' words.
        options: The task's own options (its dataclass fields); for a built-in task, fields of
            `[task]`.

    Raises:
        AssertionError: It breaks a rule; the message names the rule.
        CloisterError: It cannot be used in a recipe, or a record does not fit it.
    """
    case = case_of(task, records, labels, max_length, tokenizer, **options)
    for check in CHECKS:
        check(case)


def case_of(
    task: type | str,
    records: Sequence[Record],
    labels: Sequence[str] | None = None,
    max_length: int = MAX_LENGTH,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: object,
) -> Case:
    """Makes a task and encodes its records; see `check_task`."""
    if len(records) < 2:
        raise UsageError(f"{len(records)} records given; at least 2 are needed")
    config = TaskConfig(max_length=max_length)
    if isinstance(task, str):
        config = TaskConfig(kind=task, max_length=max_length, **options)  # type: ignore[arg-type]
    else:
        kind, plugin = named(task, **options)
        config = TaskConfig(kind=kind, plugin=plugin, max_length=max_length)
    found = tuple(labels or labels_of(records, config.kind))
    tokenizer = tokenizer or word_tokenizer(records)
    bound, again = (build_task(config, found, tokenizer) for _ in range(2))
    examples = [bound.encode(record) for record in records]
    return Case(bound, again, records, examples, len(bound.labels) or len(tokenizer))


def word_tokenizer(records: Sequence[Record]) -> PreTrainedTokenizerFast:
    """Makes a fast tokenizer whose tokens are the words of some records."""
    words = sorted({word for record in records for word in _text(record).split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
    )


def _text(record: Record) -> str:
    if isinstance(record, PairRecord):
        return f"{record.text} {record.text_b}"
    if isinstance(record, TextRecord | LabelsRecord | ScoreRecord):
        return record.text
    if isinstance(record, TokenRecord):
        return " ".join(record.tokens)
    if isinstance(record, ItemsRecord):
        return " ".join(record.items)
    assert isinstance(record, ChatRecord)
    return " ".join(message.content for message in record.messages)


def check_encoding(case: Case) -> None:
    """Checks that an example depends on its record alone and not on earlier ones."""
    backwards = [case.again.encode(record) for record in reversed(case.records)]
    twice = [case.task.encode(record) for record in case.records]
    assert backwards[::-1] == list(case.examples) == twice, (
        "a record is encoded differently after other records; encode must change nothing on the "
        "object or the class, otherwise one record is part of another's gradient"
    )


def check_memory(case: Case) -> None:
    """Checks that losses depend on their batch alone and not on earlier batches."""
    first = case.losses(case.examples[:1])
    for group in (case.examples[1:], case.examples):
        case.losses(group)
    assert torch.equal(first, case.losses(case.examples[:1])), (
        "the same batch has another loss after other batches; record_losses must change nothing "
        "on the object (such as a running mean)"
    )


def check_alone(case: Case) -> None:
    """Checks that a record's loss is the same for any other records in the batch."""
    together = case.losses(case.examples)
    alone = torch.cat([case.losses([example]) for example in case.examples])
    assert torch.allclose(together, alone, rtol=CLOSE, atol=CLOSE), (
        "a record's loss changes with its companions, so clipping does not bound its influence; "
        "average within the record, never over the batch"
    )
    assert alone.max() - alone.min() > CLOSE, (
        "all records have the same loss, so the check shows nothing; give records that differ"
    )


def check_gradients(case: Case) -> None:
    """Checks that the gradient of a record's loss is zero at every other record's logits."""
    batch = case.task.collate(case.examples)
    logits = case.logits(batch).requires_grad_()
    losses = case.task.record_losses(logits, batch)
    assert losses.requires_grad, "losses have no gradient at the logits: nothing could be learnt"
    for row in range(len(losses)):
        (found,) = torch.autograd.grad(losses[row], logits, retain_graph=True)
        others = [other for other in range(len(losses)) if other != row]
        assert not found[others].any(), "a record's loss has a gradient at another record's logits"
        assert torch.isfinite(found).all(), "a record's gradient is not finite"


def check_padding(case: Case) -> None:
    """Checks that padding and dummy rows change no loss."""
    batch = case.task.collate(case.examples)
    lengths = [len(example.input_ids) for example in case.examples]
    assert batch.attention_mask.sum(dim=1).tolist() == lengths, (
        "attention_mask is not 1 at an example's tokens and 0 beyond"
    )
    rows, length = len(lengths) + 2, max(lengths) + 7
    wider = case.task.collate(case.examples, BatchShape(rows, length, (rows,)))
    assert wider.input_ids.shape == (rows, length), "a fixed shape was not kept"
    assert wider.attention_mask.any(dim=1).all(), "a dummy row attends to nothing: it gives NaN"
    losses = case.task.record_losses(case.logits(wider), wider)
    assert torch.allclose(
        losses[: len(lengths)], case.losses(case.examples), rtol=CLOSE, atol=CLOSE
    ), "padding changes losses"


def check_float32(case: Case) -> None:
    """Checks that losses of half-precision logits are float32, cast before anything is computed."""
    batch = case.task.collate(case.examples)
    half = case.logits(batch).bfloat16()
    found = case.task.record_losses(half, batch)
    assert found.dtype == torch.float32, f"losses are {found.dtype}; float32 is needed"
    assert found.shape == (len(case.examples),), (
        f"losses have the shape {tuple(found.shape)}; one for each record is needed"
    )
    assert torch.equal(found, case.task.record_losses(half.float(), batch)), (
        "the logits are cast to float32 after a computation; cast them first"
    )


def check_length(case: Case) -> None:
    """Checks that no example is longer than `max_length`, and that each token has one target."""
    for example in case.examples:
        assert 0 < len(example.input_ids) <= case.task.max_length, "an example is empty or too long"
        if isinstance(example.target, tuple):
            assert len(example.target) == len(example.input_ids), "each token needs one target"


def check_total(case: Case) -> None:
    """Checks that the loss is finite for every class and for logits of any size."""
    like = case.examples[0]
    classes = range(len(case.task.labels))
    targets = [
        tuple(number for _ in like.input_ids) if isinstance(like.target, tuple) else number
        for number in classes
    ]
    examples = [Example(like.input_ids, target) for target in targets] or list(case.examples)
    batch = case.task.collate(examples)
    for value in EXTREMES:
        logits = torch.full_like(case.logits(batch), value)
        logits[..., 0] = -value
        losses = case.task.record_losses(logits, batch)
        assert torch.isfinite(losses).all(), f"a loss of logits of {value:g} is not finite"


def check_meter(case: Case) -> None:
    """Checks that scores do not depend on how records are batched or ordered."""
    examples = list(case.examples)
    whole = _score(case, [examples])
    assert case.task.primary_metric in whole, f"no {case.task.primary_metric} among the scores"
    expected = float(case.losses(examples).mean())
    assert math.isclose(whole["loss"], expected, rel_tol=1e-4, abs_tol=CLOSE), (
        f"loss is {whole['loss']:g}; the mean over records is {expected:g}"
    )
    for groups in ([examples[:1], examples[1:]], [examples[::-1]]):
        scores = _score(case, groups)
        for name, value in whole.items():
            assert math.isclose(scores[name], value, rel_tol=1e-4, abs_tol=CLOSE), (
                f"{name} changes with how records are batched or ordered"
            )


def _score(case: Case, groups: Sequence[Sequence[Example]]) -> dict[str, float]:
    meter = case.task.meter()
    for group in groups:
        batch = case.task.collate(group)
        meter.add(case.logits(batch), batch)
    return meter.result()


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_encoding,
    check_memory,
    check_alone,
    check_gradients,
    check_padding,
    check_float32,
    check_length,
    check_total,
    check_meter,
)
