"""Adapters that read their base's activations in the base's own type.

peft converts an activation of bfloat16 to the adapter's float32 in each adapted module. Where
query, key and value read one activation, three copies of it of twice its size wait for the backward
pass. A layer that converts for itself (`training.linear_gradients`) needs none of them: the
activation is kept once, as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft.tuners.lora import LoraLayer
from torch import nn

from cloister.models.network import Network


@contextmanager
def inputs_as_they_are(network: Network, converting: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, adapters get activations as the base computes them.

    Args:
        network: With adapters.
        converting: Modules that convert their inputs for themselves. An adapter some of whose first
            factors are not among them, as they rest, is left as it is.
    """
    able = {id(module) for module in converting}
    changed = [
        module
        for module in network.modules()
        if isinstance(module, LoraLayer)
        and module.cast_input_dtype_enabled
        and module.lora_A
        and all(id(factor) in able for factor in module.lora_A.values())
    ]
    for module in changed:
        module.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for module in changed:
            module.cast_input_dtype_enabled = True
