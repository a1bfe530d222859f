"""Finds the module that computes with a parameter, including peft's own modules."""

from __future__ import annotations

from collections.abc import Iterator

from peft.tuners.ia3 import Linear as ScaledLinear
from peft.tuners.prefix_tuning import PrefixEncoder
from peft.tuners.prompt_tuning import PromptEmbedding
from torch import nn

__all__ = ["ScaledLinear", "prompt_tables", "trained_owners"]


def prompt_tables(network: nn.Module) -> list[nn.Embedding]:
    """Returns the embeddings whose rows, all in order, are put before every record."""
    encoders = [m for m in network.modules() if type(m) in (PromptEmbedding, PrefixEncoder)]
    return [t for encoder in encoders for t in encoder.children() if isinstance(t, nn.Embedding)]


def trained_owners(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields each module that computes with its own trained tensors, with its name.

    A dictionary of parameters computes nothing itself: its layer is yielded instead (peft's IA³).
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.ParameterDict):
            continue
        own = list(module.parameters(recurse=False))
        for held in module.children():
            if isinstance(held, nn.ParameterDict):
                own += list(held.parameters())
        if any(parameter.requires_grad for parameter in own):
            yield name, module
