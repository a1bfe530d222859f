"""Reads a base's number of positions and token ids from its network and configuration."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cloister.tasks.fit import Limits

# Names of the number of positions in configurations. transformers has aliases (`n_positions` of
# GPT-2 is read as `max_position_embeddings`); MPT has the second name.
DECLARED = ("max_position_embeddings", "max_seq_len")

# Names of learnt tables with one row per position: `position_embeddings` (BERT and its
# descendants), `embed_positions` (OPT, BART), `wpe` (GPT-2, GPT-Neo).
TABLE = re.compile(r"position|(^|\.)wpe(\.|$)")


def limits_of(model: PreTrainedModel, taken: int = 0) -> Limits:
    """Returns the largest token and length that a base can take.

    The number of positions is the smaller of the number in its configuration and the rows of its
    tables. A base with rotary embeddings can run beyond the declared number, but was not trained
    there, so the number is a limit too. A configuration with none, or −1 (XLNet), sets no limit.

    Token ids are limited by the rows of the input embedding and of the language-modelling head, if
    there is one, because a causal LM's tokens are also its targets.

    Args:
        model: The base, with or without adapters.
        taken: Positions that are used by vectors before a text.
    """
    positions = _positions(model)
    return Limits(None if positions is None else positions - taken, _vocabulary(model))


def _positions(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    declared = [getattr(config, name, None) for name in DECLARED]
    known = [number for number in declared if isinstance(number, int) and number > 0]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and TABLE.search(name):
            # RoBERTa and its descendants number positions from their padding id + 1.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            known.append(module.num_embeddings - first)
    return min(known, default=None)


def _vocabulary(model: PreTrainedModel) -> int | None:
    try:
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    except NotImplementedError:  # ids are hashed and have no table (CANINE)
        return None
    return min((_rows(table) for table in tables if table is not None), default=None)


def _rows(table: nn.Module) -> int:
    """Returns the token ids of an embedding or head, with or without adapter or quantization."""
    inner: Any = getattr(table, "base_layer", table)
    # Packed weights have another shape, so the module's own number comes first.
    rows = getattr(inner, "num_embeddings", None) or getattr(inner, "out_features", None)
    return int(rows or inner.weight.shape[0])
