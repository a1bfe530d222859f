"""Computes the base's own outputs while its adapters stay attached, without effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer

from cloister.models.network import Network


@contextmanager
def adapters_off(network: Network) -> Iterator[None]:
    """Makes the network compute its base's outputs inside the context.

    Products and biases are scaled by zero, IA³'s vectors are one, and a prompt is left out. peft's
    `disable_adapter` is not used: it would change which parameters are trained.
    """
    layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
    before = [dict(layer.scaling) for layer in layers]
    vectors = [
        vector
        for module in network.modules()
        if isinstance(module, IA3Layer)
        for vector in module.ia3_l.values()
    ]
    values = [vector.detach().clone() for vector in vectors]
    leading = network.leading
    try:
        if network.is_prompted:  # the prompt is added outside of the base
            network.backbone.forward = network.base.forward  # type: ignore[method-assign]
            network.leading = 0
        for layer in layers:
            layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
        with torch.no_grad():
            for vector in vectors:
                vector.fill_(1.0)
        yield
    finally:
        if network.is_prompted:
            del network.backbone.forward
            network.leading = leading
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
        with torch.no_grad():
            for vector, value in zip(vectors, values, strict=True):
                vector.copy_(value)
