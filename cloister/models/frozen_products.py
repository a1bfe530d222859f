"""Computes frozen linear layers with the processor's widest vectors, where MKL leaves them unused.

torch's products of float32 matrices are MKL's, which has code for AVX-512 on Intel's processors
only: on others it uses AVX2, half as wide. oneDNN, which torch has too, uses what the processor
has. On an AMD EPYC with AVX-512 a core did 115·10⁹ operations a second with MKL and 250·10⁹ with
oneDNN (products of 512 × 384 by 384 × 1,536, `benchmarks/products.py`); such products are three
quarters of a pass.

Only layers that no study trains are computed so: the base's own. As with MKL, a row of the result
depends on its own row alone for the numbers of rows that the machine's proof finds
(`training.proof`).

Shapes: B records, T tokens, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# As `vendor_id` of Linux's /proc/cpuinfo; where there is no such file, MKL is used.
_AMD = "AuthenticAMD"


class FrozenLinear(nn.Linear):
    """An `nn.Linear` whose products oneDNN computes; equal to it up to rounding.

    Tracing (ONNX) and other types or devices see the layer that it was before.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns [B, T, O] from [B, T, I]."""
        if not self._is_served(input):
            return super().forward(input)
        output: Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return output

    def _is_served(self, given: Tensor) -> bool:
        trains = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return (
            given.dtype == self.weight.dtype == torch.float32
            and given.device.type == self.weight.device.type == "cpu"
            and not trains
            and given.numel() > 0
            and not torch.is_autocast_enabled("cpu")
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            and not torch.compiler.is_compiling()
        )


class _Product(torch.autograd.Function):
    """`F.linear` by oneDNN, with a gradient for the input alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradients[0], weight.t(), None), None, None


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns inputs · weightᵀ + bias: what torch's compiler calls for a linear layer on a CPU."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs.contiguous(), weight, bias, "none", [], ""
    )
    return found


def use_wide_products(base: nn.Module) -> None:
    """Makes a base's frozen linear layers `FrozenLinear` if this processor gains by it.

    Args:
        base: The base with its adapters, which stay as they are: their products are narrow.
    """
    if not mkl_is_narrow():
        return
    for name, module in base.named_modules():
        is_frozen = not any(p.requires_grad for p in module.parameters(recurse=False))
        if type(module) is nn.Linear and is_frozen and "lora_" not in name:
            module.__class__ = FrozenLinear


@cache
def mkl_is_narrow() -> bool:
    """Whether MKL uses half of this processor's vectors, and torch has oneDNN."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _maker() == _AMD
    )


def _maker() -> str:
    """Returns the name by which the processor states its maker; empty where it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    stated = (line.partition(":") for line in lines)
    return next((maker.strip() for name, _, maker in stated if name.strip() == "vendor_id"), "")
