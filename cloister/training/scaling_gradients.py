"""Computes each record's gradient of a vector that scales a layer's features (IA³).

    G_i = Σ_t g_it ⊙ x_it       for record i, over its tokens t: output gradient times input

Shapes: B records, T tokens, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cloister.models.owners import ScaledLinear
from cloister.training.linear_gradients import leave


@contextmanager
def per_record_scalings(layers: list[ScaledLinear]) -> Iterator[None]:
    """Makes every backward pass leave `grad_sample` [B, …] on these layers' vectors.

    The loss must be a sum over records, and records must be the rows of inputs. No `.grad` is left.
    """
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: ScaledLinear, inputs: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """Computes the layer's output with the same bits as peft does; the layer has one adapter."""
    (vector,) = layer.ia3_l.values()
    if layer.disable_adapters or not torch.is_grad_enabled() or not vector.requires_grad:
        plain: Tensor = type(layer).forward(layer, inputs, *arguments, **keywords)
        return plain
    if layer.is_feedforward:
        scaled: Tensor = _Scaled.apply(inputs, vector)  # type: ignore[no-untyped-call]
        return layer.base_layer(scaled, *arguments, **keywords)  # type: ignore[no-any-return]
    outputs = layer.base_layer(inputs, *arguments, **keywords)
    return _Scaled.apply(outputs, vector)  # type: ignore[no-any-return, no-untyped-call]


class _Scaled(torch.autograd.Function):
    """Computes `values * vector` in the vector's type and returns it in the values' type."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, vector: Tensor) -> Tensor:
        ctx.save_for_backward(values, vector)
        ctx.vector = vector
        return (values.to(vector.dtype) * vector.flatten()).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        values, vector = ctx.saved_tensors
        gradient = gradients[0].to(vector.dtype)
        of_each = gradient * values.to(vector.dtype)
        summed = of_each if of_each.dim() == 2 else of_each.flatten(1, -2).sum(1)
        leave(ctx.vector, summed.reshape(len(summed), *vector.shape))
        if not ctx.needs_input_grad[0]:
            return None, None
        return (gradient * vector.flatten()).to(values.dtype), None
