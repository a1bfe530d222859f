"""Pads examples of different lengths into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cloister.tasks.task import IGNORE, Batch, BatchShape, Example


def collate(examples: Sequence[Example], pad_id: int, shape: BatchShape | None = None) -> Batch:
    """Pads examples on the right to the longest of them, or to a fixed shape.

    Args:
        examples: At least one; either all with a class id, or all with one id per token. With a
            fixed shape: at most as many as its rows, none longer than its length.
        pad_id: Token id of padding.
        shape: Rows beyond the examples are dummies: one padding token that is attended to, so that
            no row is fully masked, and class 0 or nothing to learn.
    """
    length = max(len(e.input_ids) for e in examples) if shape is None else shape.length
    dummies = 0 if shape is None else shape.rows - len(examples)
    per_token = isinstance(examples[0].target, tuple)
    dummy = Example((pad_id,), (IGNORE,) if per_token else 0)
    rows = [*examples, *[dummy] * dummies]
    return Batch(
        input_ids=_pad([e.input_ids for e in rows], length, pad_id),
        attention_mask=_pad([(1,) * len(e.input_ids) for e in rows], length, 0),
        target=_targets(rows, length),
        examples=tuple(examples),
        shape=shape,
        segments=_segments(rows, length),
    )


def collate_wanted(
    examples: Sequence[Example], outputs: int, pad_id: int, shape: BatchShape | None = None
) -> Batch:
    """Pads examples that have a number for each output; see `collate`.

    Args:
        examples: At least one; see `Example.wanted`.
        outputs: C.
        pad_id: Token id of padding.
        shape: Rows beyond the examples are dummies, whose target is 0 for every output.

    Returns:
        The batch, its target float32 [B, C].
    """
    batch = collate(examples, pad_id, shape)
    target = torch.zeros(len(batch.target), outputs)
    for row, example in enumerate(examples):
        for output, value in example.wanted:
            target[row, output] = value
    return replace(batch, target=target)


def _targets(examples: Sequence[Example], longest: int) -> Tensor:
    rows = [example.target for example in examples if isinstance(example.target, tuple)]
    if rows:
        return _pad(rows, longest, IGNORE)
    return torch.tensor([example.target for example in examples])


def _segments(examples: Sequence[Example], longest: int) -> Tensor | None:
    """Returns the segment (0 or 1) of every token; None if no example has two texts."""
    if not any(example.segments for example in examples):
        return None
    return _pad([e.segments or (0,) * len(e.input_ids) for e in examples], longest, 0)


def _pad(rows: Sequence[Sequence[int]], longest: int, value: int) -> Tensor:
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
