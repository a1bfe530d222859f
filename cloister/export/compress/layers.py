"""Drops those layers of a base whose absence changes the outputs on public texts least.

ShortGPT (Men et al. 2024, arXiv:2403.03853) drops the layers that change their own input least.
Here the model's outputs are compared instead of the hidden states, because a classifier's head
reads only a small part of those. Layers are chosen one after the other, each after the previous
choices were removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cloister.errors import UsageError
from cloister.export.compress.distance import Reference
from cloister.models.layers import layer_list
from cloister.models.network import Network

# Fields of a configuration that hold one value for each layer.
_BY_LAYER = ("layer_types", "no_rope_layers", "attention_layers")


class LayerStack:
    """A base's layers, of which some can be left out and put back.

    Args:
        base: The base without adapters; its layers and configuration are changed.

    Raises:
        UsageError: Its layers are not one list: they share weights, or there are two lists.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self._config: Any = base.config.get_text_config()
        found = layer_list(base, int(self._config.num_hidden_layers))
        if found is None:
            raise UsageError(
                f"drop_layers: the layers of {self._config.model_type} are not one list with "
                "weights of their own, so none can be dropped"
            )
        name, blocks = found
        self._parent: Any = base.get_submodule(name.rpartition(".")[0])
        self._name = name.rpartition(".")[2]
        self._blocks = list(blocks)
        self._values = {
            field: list(value)
            for field in _BY_LAYER
            if isinstance(value := vars(self._config).get(field), list | tuple)
            and len(value) == len(blocks)
        }
        self.kept = list(range(len(blocks)))

    def keep(self, places: Sequence[int]) -> None:
        """Keeps only the layers at these positions (ascending) in the original list.

        A layer keeps its old number, by which it addresses the cache of keys and values. So a chat
        can generate text only after the model was saved and loaded again.
        """
        self.kept = list(places)
        layers = [self._blocks[place] for place in places]
        setattr(self._parent, self._name, nn.ModuleList(layers))
        self._config.num_hidden_layers = len(layers)
        for field, values in self._values.items():
            setattr(self._config, field, [values[place] for place in places])
        if "attention_layers" in self._values:  # GPT-Neo computes it from kinds and repetitions
            self._config.attention_types = [[self._config.attention_layers, 1]]

    def droppable(self) -> list[int]:
        """Returns the positions of the layers that can be dropped.

        A layer with other tensors than the last one must stay at its position (ModernBERT's first
        layer lacks a norm), because transformers expects those tensors there.
        """
        names = [tuple(name for name, _ in block.named_parameters()) for block in self._blocks]
        return [place for place in self.kept if names[place] == names[-1]]


def drop_layers(
    network: Network, count: int, reference: Reference, on_stage: Callable[[str], None]
) -> tuple[int, ...]:
    """Drops layers of a network one after the other, each time the least important one.

    Args:
        network: The network, without adapters; it is changed.
        count: Number of layers to drop.
        reference: The trained model's outputs on public texts.
        on_stage: Called with a description of each stage when it begins.

    Returns:
        Numbers of the dropped layers, from 0, in the order in which they were dropped.

    Raises:
        UsageError: Too few layers can be dropped, or the layers are not one list.
    """
    stack = LayerStack(network.base)
    most = min(len(stack.droppable()), len(stack.kept) - 1)
    if count > most:
        raise UsageError(
            f"drop_layers: {count} given; of this base's {len(stack.kept)} layers at most {most} "
            "can be dropped"
        )
    dropped: list[int] = []
    for number in range(1, count + 1):
        on_stage(f"choosing layer {number} of {count} to drop")
        kept = list(stack.kept)
        distances = {}
        for place in stack.droppable():
            stack.keep([one for one in kept if one != place])
            distances[place] = reference.distance(network)
            stack.keep(kept)
        # Of two equal layers, drop the later one: later layers matter less (ShortGPT).
        gone = min(distances, key=lambda place: (distances[place], -place))
        stack.keep([one for one in kept if one != gone])
        dropped.append(gone)
    return tuple(dropped)
