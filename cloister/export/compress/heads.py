"""Drops attention heads: rows of q, k and v and columns of o are removed, the matrices smaller.

Michel et al. 2019 (arXiv:1905.10650) rank heads by how much the loss changes when one is masked,
estimated by a gradient; here each is masked and the change of the outputs on public texts is
computed. transformers' folder states one number of heads for all layers, so each layer loses as
many: its least important ones. Where key and value heads are shared by several query heads
(grouped-query attention), a group goes as a whole.

Only architectures whose configuration states a head's width (`head_dim`) beside the number of heads
can be written so. In BERT and its descendants the width is the model's divided by the number of
heads, so that fewer heads would be wider ones.
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

# By transformers' `model_type`: attention is `self_attn` with q_proj, k_proj, v_proj and o_proj,
# and norms of queries and keys, where there are any, are of one head's width.
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
    """The heads of a base.

    Attributes:
        layers: Its layers' attention modules.
        groups: Key and value heads of each.
        queries: Query heads that read one of them.
        width: Of a head.
    """

    layers: tuple[Any, ...]
    groups: int
    queries: int
    width: int

    def rows(self, group: int, *, is_query: bool) -> range:
        """Rows of q (of k and v) that belong to a group; of q also columns of o."""
        count = self.width * (self.queries if is_query else 1)
        return range(group * count, (group + 1) * count)


def heads_of(network: Network) -> AttentionHeads:
    """Finds the heads of a base without adapters.

    Raises:
        UsageError: Its architecture has no place for fewer heads.
    """
    config: Any = network.base.config.get_text_config()
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"drop_heads: transformers reads the width of a head of {config.model_type} off the "
            "model's width and the number of heads, or keeps its heads in other matrices, so a "
            f"folder cannot hold fewer heads; possible for {', '.join(FAMILIES)}. Drop layers "
            "instead"
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
    """Drops groups of heads from each layer.

    Args:
        network: Without adapters.
        count: Groups that go from each layer.
        reference: The trained model's outputs on public texts.
        on_stage: Called with what begins.

    Returns:
        Of each layer the dropped groups' numbers, from 0, ascending.

    Raises:
        UsageError: There are not as many, or the architecture cannot have fewer.
    """
    heads = heads_of(network)
    if count >= heads.groups:
        raise UsageError(
            f"drop_heads: {count} given; each layer has {heads.groups} groups of heads, of which "
            "one at least stays"
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
    """Reads nothing of some heads: what a missing head adds."""
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
