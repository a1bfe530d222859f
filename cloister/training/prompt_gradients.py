"""Computes each record's gradient of the vectors before its text (prompt and prefix tuning).

    G_i = g_i        for record i: the gradient of the copy of the vectors that it read

Shapes: B records, v vectors, F features of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloister.training.linear_gradients import leave


@contextmanager
def per_record_prompts(tables: list[nn.Embedding]) -> Iterator[None]:
    """Makes every backward pass leave `grad_sample` [B, v, F] on these tables.

    Each table must be called with the same row numbers for every record and each number once, as
    peft calls a prompt's. The loss must be a sum over records. No `.grad` is left.
    """
    for table in tables:
        table.forward = partial(_forward, table)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for table in tables:
            del table.forward


def _forward(table: nn.Embedding, rows: Tensor) -> Tensor:
    weight = table.weight
    if not weight.requires_grad or not torch.is_grad_enabled():
        return F.embedding(rows, weight)
    return _Copies.apply(rows, weight)  # type: ignore[no-any-return, no-untyped-call]


class _Copies(torch.autograd.Function):
    """Looks up rows [B, n] of a table [v, F] as [B, n, F], and keeps each record's gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.rows, ctx.weight = rows[0], weight
        return F.embedding(rows, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        (gradient,) = gradients
        of_each = gradient.new_zeros(len(gradient), *ctx.weight.shape)
        of_each[:, ctx.rows] = gradient
        leave(ctx.weight, of_each)
        return None, None
