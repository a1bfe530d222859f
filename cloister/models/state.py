"""Reads and writes the trained tensors of a network."""

from __future__ import annotations

from collections.abc import Collection

import torch

from cloister.adapter.tensors import Adapter
from cloister.models.network import Network, adapter_name, trained_parameters


def read_adapter(network: Network) -> Adapter:
    """Copies the parameters that the network trains now, as float32."""
    return read_tensors(network, {name for name, _ in trained_parameters(network)})


def read_tensors(network: Network, names: Collection[str]) -> Adapter:
    """Copies named parameters of the network, trained or not, as float32.

    Raises:
        KeyError: The network has no parameter of such a name.
    """
    parameters = {adapter_name(n): p for n, p in network.named_parameters()}
    return Adapter(
        {
            name: parameters[name].detach().to(device="cpu", dtype=torch.float32).numpy()
            for name in names
        }
    )


def write_adapter(network: Network, adapter: Adapter) -> None:
    """Sets parameters of the network, trained or not, to the adapter's values.

    Raises:
        KeyError: The network has no parameter of such a name.
        ValueError: A shape differs.
    """
    parameters = {adapter_name(n): p for n, p in network.named_parameters()}
    with torch.no_grad():
        for name, array in adapter.items():
            if parameters[name].shape != array.shape:
                raise ValueError(f"{name}: shape {array.shape} given, not {parameters[name].shape}")
            parameters[name].copy_(torch.from_numpy(array.copy()))
