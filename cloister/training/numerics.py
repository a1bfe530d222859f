"""Sets the arithmetic of private training, and checks that nothing has changed it.

A record's gradient is independent of other records only as long as the same kernels run. TF32,
autocast, a lower matmul precision, products whose parts are added in 16 bits (split-K), cuDNN's
search for the fastest kernel and nondeterministic algorithms all change the kernel; the number of
threads changes how a kernel divides its work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

from cloister.errors import RefusedError
from cloister.models.device import fix_cublas

# Whether products of 16-bit floats on a GPU may add parts in 16 bits; in newer versions of torch
# also whether they may be cut along the sum at all.
Reduced = bool | tuple[bool, bool]


@contextmanager
def pinned() -> Iterator[None]:
    """Sets full float32 precision and deterministic kernels; restores the settings at the end.

    Raises:
        RefusedError: The process mixes torch's two ways to set precisions, so the settings cannot
            be read.
    """
    try:
        before = (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            *_reduced(),
        )
    except RuntimeError as error:
        raise RefusedError(_MIXED) from error
    fix_cublas()
    _set("highest", False, False, True, False, False, *_whole_products())
    try:
        yield
    finally:
        _set(*before)


def _set(
    precision: str,
    tf32: bool,
    benchmark: bool,
    exact: bool,
    warn_only: bool,
    fill: bool,
    reduced_bf16: Reduced,
    reduced_fp16: Reduced,
) -> None:
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(exact, warn_only=warn_only)
    # Filling new tensors with NaN finds bugs in torch and costs time; nothing here reads them.
    deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    products: Any = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = reduced_bf16
    products.allow_fp16_reduced_precision_reduction = reduced_fp16


def _reduced() -> tuple[Reduced, Reduced]:
    """The present settings for products of bf16 and of fp16 on a GPU."""
    bf16: Any = torch._C._get_cublas_allow_bf16_reduced_precision_reduction()
    fp16: Any = torch._C._get_cublas_allow_fp16_reduced_precision_reduction()
    return bf16, fp16


def _whole_products() -> tuple[Reduced, Reduced]:
    """The settings that forbid 16-bit sums and split-K, in the form of this torch version."""
    bf16, fp16 = ((False, False) if isinstance(one, tuple) else False for one in _reduced())
    return bf16, fp16


_MIXED = (
    "torch's precisions were set both by the old and by the new interface, so they cannot be read; "
    "leave torch.backends.*.fp32_precision alone in a process that trains privately"
)


def check_pinned(threads: int | None = None) -> None:
    """Checks that the numeric settings are still as `pinned` set them.

    Args:
        threads: Number of threads of the machine's proof; None: any number.

    Raises:
        RefusedError: Something in this process changed a setting.
    """
    try:
        found = {
            "torch.get_float32_matmul_precision()": (
                torch.get_float32_matmul_precision(),
                "highest",
            ),
            "torch.backends.mkldnn.matmul.fp32_precision": (
                getattr(torch.backends.mkldnn, "matmul").fp32_precision,  # noqa: B009
                "ieee",
            ),
            "torch.backends.cuda.matmul.allow_tf32": (torch.backends.cuda.matmul.allow_tf32, False),
            "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction": (
                _reduced()[0],
                _whole_products()[0],
            ),
            "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction": (
                _reduced()[1],
                _whole_products()[1],
            ),
            "torch.backends.cudnn.allow_tf32": (torch.backends.cudnn.allow_tf32, False),
            "torch.backends.cudnn.benchmark": (torch.backends.cudnn.benchmark, False),
            "torch.are_deterministic_algorithms_enabled()": (
                torch.are_deterministic_algorithms_enabled(),
                True,
            ),
            "torch.is_autocast_enabled('cpu')": (torch.is_autocast_enabled("cpu"), False),
            "torch.is_autocast_enabled('cuda')": (torch.is_autocast_enabled("cuda"), False),
        }
    except RuntimeError as error:
        raise RefusedError(_MIXED) from error
    if threads is not None:
        found["torch.get_num_threads()"] = (torch.get_num_threads(), threads)
    for name, (value, needed) in found.items():
        if value != needed:
            raise RefusedError(
                f"{name} is {value} and was {needed} when private training was set up: another "
                "kernel may let one record change another's gradient; do not change it, or start "
                "again"
            )
