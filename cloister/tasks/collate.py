"""Padding: examples of different length to one rectangle, tokens first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloister.tasks.task import IGNORE, Batch, Example


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pads examples on the right to the longest of them.

    Args:
        examples: At least one; all with a class id, or all with one id a token.
        pad_id: Token id of padding.
    """
    longest = max(len(example.input_ids) for example in examples)
    return Batch(
        input_ids=_pad([e.input_ids for e in examples], longest, pad_id),
        attention_mask=_pad([(1,) * len(e.input_ids) for e in examples], longest, 0),
        target=_targets(examples, longest),
        examples=tuple(examples),
    )


def _targets(examples: Sequence[Example], longest: int) -> Tensor:
    rows = [example.target for example in examples if isinstance(example.target, tuple)]
    if rows:
        return _pad(rows, longest, IGNORE)
    return torch.tensor([example.target for example in examples])


def _pad(rows: Sequence[Sequence[int]], longest: int, value: int) -> Tensor:
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
