"""Lets adapters read their base's activations in the base's own type, to save memory.

peft converts an activation of bfloat16 to the adapter's float32 in each adapted module. If
query, key and value read one activation, three copies of twice its size are kept for the backward
pass. A layer that converts its input itself (`training.linear_gradients`) needs none of them: the
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
    """Gives adapters the activations in the base's type inside the context.

    Args:
        network: With adapters.
        converting: Modules that convert their inputs themselves. An adapter with a first factor
            that is not among them (a frozen one) is left unchanged.
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
