"""Chooses which layers' per-record gradients are computed here, without Opacus' hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from cloister.models.input_types import inputs_as_they_are
from cloister.models.network import Network
from cloister.models.owners import ScaledLinear, prompt_tables, trained_owners
from cloister.training.linear_gradients import per_record
from cloister.training.prompt_gradients import per_record_prompts
from cloister.training.scaling_gradients import per_record_scalings

# Compared by exact type: a subclass may override `forward` and compute something else.
_KNOWN = (nn.Linear, ScaledLinear)


def known_layers(network: Network) -> list[nn.Module] | None:
    """Returns the layers that own the trained tensors; None if one of them has an unknown type."""
    tables = {id(table) for table in prompt_tables(network)}
    found = [module for _, module in trained_owners(network)]
    is_known = all(type(module) in _KNOWN or id(module) in tables for module in found)
    return found if is_known else None


@contextmanager
def per_record_layers(network: Network, layers: list[nn.Module]) -> Iterator[None]:
    """Makes every backward pass leave `grad_sample` [B, …] on these layers' trained tensors.

    Args:
        network: The network that contains the layers.
        layers: The layers that `known_layers` returned.
    """
    linears = [layer for layer in layers if type(layer) is nn.Linear]
    scaled = [layer for layer in layers if type(layer) is ScaledLinear]
    tables = [layer for layer in layers if isinstance(layer, nn.Embedding)]
    with (
        per_record(linears),
        inputs_as_they_are(network, linears),
        per_record_scalings(scaled),
        per_record_prompts(tables),
    ):
        yield
