"""Products of frozen linear layers: torch's own (MKL) beside oneDNN's, on one thread.

    python -m benchmarks.products

For the shapes of MiniLM's layers it prints operations a second, forward and backward to the inputs,
in turns, as medians of CPU time. `models.frozen_products` chooses by the processor's maker.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from cloister.models.frozen_products import FrozenLinear, mkl_is_narrow

TOKENS = 512  # of a pass
SIZES = ((384, 384), (384, 1536), (1536, 384))  # inputs and outputs
TURNS, CALLS = 9, 20


def rate(layer: nn.Linear, inputs: torch.Tensor, is_backward: bool) -> float:
    """Returns floating-point operations a second of CPU time, over `CALLS` calls."""
    sent = torch.randn(TOKENS, layer.out_features)
    outputs = [layer(inputs) for _ in range(CALLS)] if is_backward else []
    began = time.process_time()
    if is_backward:
        for output in outputs:
            torch.autograd.grad(output, inputs, sent)
    else:
        with torch.no_grad():
            for _ in range(CALLS):
                layer(inputs)
    took = time.process_time() - began
    return CALLS * 2 * TOKENS * layer.in_features * layer.out_features / took


def main() -> None:
    """Measures both in turns and prints a row for each size and direction."""
    torch.set_num_threads(1)
    print(f"MKL leaves wide vectors unused here: {'yes' if mkl_is_narrow() else 'no'}")
    for size in SIZES:
        plain, wide = nn.Linear(*size), FrozenLinear(*size)
        inputs = torch.randn(TOKENS, size[0], requires_grad=True)
        for direction in ("forward", "backward"):
            found: dict[str, list[float]] = {"MKL": [], "oneDNN": []}
            for _ in range(TURNS):
                for name, layer in (("MKL", plain), ("oneDNN", wide)):
                    layer.requires_grad_(False)
                    found[name].append(rate(layer, inputs, direction == "backward"))
            told = {name: statistics.median(rates) / 1e9 for name, rates in found.items()}
            ratio = statistics.median(
                b / a for a, b in zip(found["MKL"], found["oneDNN"], strict=True)
            )
            figures = ", ".join(f"{name} {value:.0f}·10⁹/s" for name, value in told.items())
            print(f"{size[0]:>5} → {size[1]:<5} {direction:<9} {figures}, {ratio:.2f} times")


if __name__ == "__main__":
    main()
