"""How many positions and token ids a base has, read off the network and its configuration."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cloister.tasks.fit import Limits

# What configurations call the number of positions, through transformers' own aliases
# (`n_positions` of GPT-2 is read as `max_position_embeddings`); MPT has the second.
DECLARED = ("max_position_embeddings", "max_seq_len")

# Names of learnt tables with a row a position: `position_embeddings` (BERT and its descendants),
# `embed_positions` (OPT, BART), `wpe` (GPT-2, GPT-Neo).
TABLE = re.compile(r"position|(^|\.)wpe(\.|$)")


def limits_of(model: PreTrainedModel, taken: int = 0) -> Limits:
    """Returns the largest token and length that a base can take.

    Positions are the least of what its configuration declares and what its tables have rows for. A
    base with rotary embeddings runs beyond what it declares, but was never trained to: that counts
    as its limit too. A configuration that declares none, or −1 (XLNet), sets no limit.

    Token ids are the rows of the input embedding, and of the language-modelling head where there is
    one, because a causal LM's tokens are its targets as well.

    Args:
        model: The base, with or without adapters.
        taken: Positions that vectors before a text take.
    """
    positions = _positions(model)
    return Limits(None if positions is None else positions - taken, _vocabulary(model))


def _positions(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    declared = [getattr(config, name, None) for name in DECLARED]
    known = [number for number in declared if isinstance(number, int) and number > 0]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and TABLE.search(name):
            # RoBERTa and its descendants count positions from their padding id's next.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            known.append(module.num_embeddings - first)
    return min(known, default=None)


def _vocabulary(model: PreTrainedModel) -> int | None:
    try:
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    except NotImplementedError:  # transformers' way to say that ids are hashed (CANINE)
        return None
    return min((_rows(table) for table in tables if table is not None), default=None)


def _rows(table: nn.Module) -> int:
    """Token ids of an embedding or a head, also under an adapter, also where it is quantized."""
    inner: Any = getattr(table, "base_layer", table)
    # Packed weights have another shape, hence first what the module says of itself.
    rows = getattr(inner, "num_embeddings", None) or getattr(inner, "out_features", None)
    return int(rows or inner.weight.shape[0])
