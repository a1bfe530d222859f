"""The base's own answers, with its adapters in place but without effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.lora import LoraLayer

from cloister.models.network import Network


@contextmanager
def adapters_off(network: Network) -> Iterator[None]:
    """Within it, the network computes what its base does: adapters are scaled by zero.

    peft's own `disable_adapter` would decide anew which parameters train.
    """
    layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
