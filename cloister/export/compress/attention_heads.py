"""Drops attention heads: removes their rows of q, k and v and their columns of o.

Michel et al. 2019 (arXiv:1905.10650) rank heads by how much the loss changes when one is masked,
estimated by a gradient. Here each head is masked in turn, and the change of the outputs on public
texts is computed. A configuration of transformers states one number of heads for all layers, so
every layer loses the same number: its least important heads. Where several query heads share a key
and value head (grouped-query attention), a group is dropped as a whole.

This works only for architectures whose configuration states a head's width (`head_dim`) as well as
the number of heads. BERT and its descendants compute the width as the model's width divided by the
number of heads, so with fewer heads each would become wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.export.compress.distance import Reference
from cloister.models.layers import layer_list
from cloister.models.network import Network

# By transformers' `model_type`: architectures whose attention is `self_attn` with q_proj, k_proj,
# v_proj and o_proj, and whose norms of queries and keys, if any, have the width of one head.
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "smollm3",
)


@dataclass(frozen=True)
class AttentionHeads:
    """The attention heads of a base: how many each layer has, and how wide they are.

    Attributes:
        layers: The attention module of each layer.
        groups: Number of key and value heads in each layer.
        queries: Number of query heads that share one key and value head.
        width: Width of a head.
    """

    layers: tuple[Any, ...]
    groups: int
    queries: int
    width: int

    def rows(self, group: int, *, is_query: bool) -> range:
        """Returns a group's rows in q (which are also its columns in o), or its rows in k and v."""
        count = self.width * (self.queries if is_query else 1)
        return range(group * count, (group + 1) * count)


def heads_of(network: Network) -> AttentionHeads:
    """Finds the heads of a base without adapters.

    Raises:
        UsageError: Its architecture cannot be configured with fewer heads.
    """
    config: Any = network.base.config.get_text_config()
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"drop_heads: a {config.model_type} cannot have fewer heads: transformers computes a "
            "head's width from the model's width and the number of heads, or stores the heads in "
            f"other matrices; possible for {', '.join(FAMILIES)}. Drop layers instead"
        )
    found = layer_list(network.base, int(config.num_hidden_layers))
    assert found is not None  # these families have one list
    blocks: Any = found[1]
    layers = tuple(layer.self_attn for layer in blocks)
    queries = int(config.num_attention_heads) // int(config.num_key_value_heads)
    width = int(layers[0].q_proj.out_features) // int(config.num_attention_heads)
    return AttentionHeads(layers, int(config.num_key_value_heads), queries, width)


def drop_heads(
    network: Network, count: int, reference: Reference, on_stage: Callable[[str], None]
) -> tuple[tuple[int, ...], ...]:
    """Drops the same number of groups of heads from each layer, the least important ones.

    Args:
        network: The network, without adapters; it is changed.
        count: Number of groups to drop from each layer.
        reference: The trained model's outputs on public texts.
        on_stage: Called with a description of each stage when it begins.

    Returns:
        For each layer, the numbers of its dropped groups, from 0, ascending.

    Raises:
        UsageError: The layers have too few groups, or the architecture cannot have fewer.
    """
    heads = heads_of(network)
    if count >= heads.groups:
        raise UsageError(
            f"drop_heads: {count} given; each layer has {heads.groups} groups of heads and must "
            "keep at least one"
        )
    dropped = []
    for number, attention in enumerate(heads.layers, 1):
        on_stage(f"choosing heads of layer {number} of {len(heads.layers)}")
        distances = []
        for group in range(heads.groups):
            with _without(attention.o_proj, heads.rows(group, is_query=True)):
                distances.append(reference.distance(network))
        order = sorted(range(heads.groups), key=distances.__getitem__)
        dropped.append(tuple(sorted(order[:count])))
    for attention, gone in zip(heads.layers, dropped, strict=True):
        _remove(heads, attention, gone)
    config: Any = network.base.config.get_text_config()
    config.head_dim = heads.width
    config.num_key_value_heads = heads.groups - count
    config.num_attention_heads = (heads.groups - count) * heads.queries
    return tuple(dropped)


@contextmanager
def _without(output: nn.Linear, columns: range) -> Iterator[None]:
    """Zeroes some heads' columns of o for the duration of a block, as if the heads were missing."""
    part = slice(columns.start, columns.stop)
    kept = output.weight.data[:, part].clone()
    output.weight.data[:, part] = 0.0
    try:
        yield
    finally:
        output.weight.data[:, part] = kept


def _remove(heads: AttentionHeads, attention: Any, gone: Sequence[int]) -> None:
    kept = [group for group in range(heads.groups) if group not in gone]
    queries = [row for group in kept for row in heads.rows(group, is_query=True)]
    keys = [row for group in kept for row in heads.rows(group, is_query=False)]
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        layer = getattr(attention, name)
        layer.weight = _part(layer.weight, rows, 0)
        if layer.bias is not None:
            layer.bias = _part(layer.bias, rows, 0)
        layer.out_features = len(rows)
    output = attention.o_proj
    output.weight = _part(output.weight, queries, 1)
    output.in_features = len(queries)


def _part(tensor: Tensor, places: Sequence[int], dimension: int) -> nn.Parameter:
    kept = tensor.detach().index_select(dimension, torch.tensor(places))
    return nn.Parameter(kept, requires_grad=False)
