"""Recomputes layers' activations in the backward pass (Chen et al. 2016, arXiv:1604.06174).

Only each layer's input is kept; what the layer saves for the backward pass is recomputed, by the
same kernels from the same values, when that pass reaches the layer. It costs one more forward pass
and changes no bit of the result: a base draws no random numbers, because it stays in evaluation
mode (`models.network`). transformers' own checkpointing asks for training mode, in which
dropout runs, so it is not used.

The preflight compares gradients with and without it, bit for bit (`training.preflight`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cloister.errors import UsageError
from cloister.models.layers import layer_list


class CheckpointedLayers:
    """Switches a base's layers to recomputing their activations.

    Args:
        backbone: The base with its adapters.
        num_layers: Its layers.

    Attributes:
        while_again: A context that is entered while a layer is recomputed, for hooks that must see
            each layer once per pass.

    Raises:
        UsageError: The base's layers are not a single list.
    """

    def __init__(self, backbone: nn.Module, num_layers: int) -> None:
        found = layer_list(backbone, num_layers)
        if found is None:
            raise UsageError(
                "machine.gradient_checkpointing: this base's layers are not one list of layers "
                "with their own weights; leave it out, or choose another base"
            )
        self.while_again: Callable[[], AbstractContextManager[None]] = nullcontext
        self._is_on = True
        for layer in found[1]:
            layer.forward = partial(self._forward, layer.forward)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Keeps activations inside the context."""
        self._is_on = False
        try:
            yield
        finally:
            self._is_on = True

    def _forward(self, forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        if not self._is_on or not torch.is_grad_enabled():
            return forward(*arguments, **keywords)
        return checkpoint(
            partial(forward, **keywords),
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), self.while_again()),
        )
