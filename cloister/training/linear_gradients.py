"""Computes each record's gradient of linear layers, by one batched product per layer.

    G_i = Σ_t g_it x_itᵀ        for record i, over its tokens t: output gradients times inputs

Adapters and heads are linear layers, so this covers LoRA. It replaces Opacus' hooks if every
trained tensor belongs to a linear layer: it computes no gradient of the whole batch in addition,
keeps an input that several layers read only once, and never waits for a GPU.

Shapes: B records, T tokens, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloister.privacy.products import Gradient, Products, whole

# Fewest values of a record's part that is kept as factors. For smaller parts a product per record
# costs more than one batched product (MKL on one core: 3 microseconds per call, 20 for 2 million
# products).
LEAST_PART = 2**15


@contextmanager
def per_record(layers: list[nn.Linear]) -> Iterator[None]:
    """Lets every backward pass leave `grad_sample` [B, …] on these layers' trained tensors.

    The loss must be a sum over records, and records must be the rows of inputs. No `.grad` is left.
    """
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if not trained or not torch.is_grad_enabled():
        return F.linear(inputs.to(weight.dtype), weight, bias)
    outputs: Tensor = _Linear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return outputs


class _Linear(torch.autograd.Function):
    """`F.linear` whose backward pass keeps each record's gradient and computes none of the batch.

    Inputs of another type than the weight's are kept as they are, and converted when they are used.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.tensors = weight, bias
        return F.linear(inputs.to(weight.dtype), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        # The parameters themselves, since saved tensors come back as other objects.
        own_weight, own_bias = ctx.tensors
        if own_weight.requires_grad:
            leave(own_weight, products(gradient, inputs.to(weight.dtype)))
        if own_bias is not None and own_bias.requires_grad:
            leave(own_bias, gradient if gradient.dim() == 2 else gradient.flatten(1, -2).sum(1))
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return (gradient @ weight).to(inputs.dtype), None, None


def products(gradient: Tensor, inputs: Tensor) -> Gradient:
    """Each record's gradient of a weight, [B, O, I], from [B, …, O] and [B, …, I].

    It is kept as factors if these are smaller and a record's part is large; on CPUs only, whose
    caches hold a part. The choice depends on shapes alone.
    """
    if gradient.dim() == 2:
        return gradient.unsqueeze(2) * inputs.unsqueeze(1)
    left, right = gradient.flatten(1, -2), inputs.flatten(1, -2)
    (tokens, outputs), part = left.shape[1:], left.shape[2] * right.shape[2]
    is_float32 = left.dtype == right.dtype == torch.float32
    if (
        is_float32
        and not left.is_cuda
        and part >= max(LEAST_PART, tokens * (outputs + right.shape[2]))
    ):
        return Products(left.detach(), right.detach())
    return torch.bmm(left.transpose(1, 2), right)


def leave(parameter: Tensor, gradient: Gradient) -> None:
    """Stores a gradient on its parameter; a layer that a pass calls twice adds the second one."""
    before: Gradient | None = getattr(parameter, "grad_sample", None)
    if before is not None:
        gradient = whole(before) + whole(gradient)
    parameter.grad_sample = gradient  # type: ignore[attr-defined]
