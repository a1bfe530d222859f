"""Each record's gradient of linear layers, by one batched product a layer.

    G_i = Σ_t g_it x_itᵀ        of record i, over its tokens t: outputs' gradients beside inputs

Adapters and heads are linear layers, so this is all of LoRA. It replaces Opacus' hooks where every
trained tensor is a linear layer's: no gradient of the whole batch is computed beside the records',
inputs that several layers read are kept once, and nothing waits for a GPU.

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

# Values of a record's part from which it is kept as factors: below, a product a record costs more
# than one of all of them (MKL on one core: 3 microseconds a call, 20 for 2 million products).
LEAST_PART = 2**15


@contextmanager
def per_record(layers: list[nn.Linear]) -> Iterator[None]:
    """Lets every backward pass leave `grad_sample` [B, …] on these layers' trained tensors.

    The loss must be a sum over records, and the records the inputs' rows. No `.grad` is left.
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
    """`F.linear`, whose backward pass keeps each record's gradient and gives none of the batch.

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
        # The parameters themselves: what is saved comes back as other objects.
        own_weight, own_bias = ctx.tensors
        if own_weight.requires_grad:
            leave(own_weight, products(gradient, inputs.to(weight.dtype)))
        if own_bias is not None and own_bias.requires_grad:
            leave(own_bias, gradient if gradient.dim() == 2 else gradient.flatten(1, -2).sum(1))
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return (gradient @ weight).to(inputs.dtype), None, None


def products(gradient: Tensor, inputs: Tensor) -> Gradient:
    """Each record's gradient of a weight, [B, O, I], of [B, …, O] and [B, …, I].

    Kept as its factors where those are the smaller and a record's part is large: on CPUs, whose
    caches hold a part. Which it is follows from the shapes.
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
    """Puts a gradient beside its parameter; a layer that a pass calls twice adds its second."""
    before: Gradient | None = getattr(parameter, "grad_sample", None)
    if before is not None:
        gradient = whole(before) + whole(gradient)
    parameter.grad_sample = gradient  # type: ignore[attr-defined]
