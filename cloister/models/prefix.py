"""The frozen lower layers, computed once for each record.

Where adapters sit in the top layers only, what enters the first of them never changes: the base is
frozen and no dropout runs. It is kept for each record, and later passes start there. This moves
time and memory, never the result.

Shapes: B records, T tokens of the longest, t tokens of one record, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cloister.errors import UsageError

TokenIds = tuple[int, ...]
Kept = dict[TokenIds, Tensor]  # hidden states [t, H] by record


class _PassThrough(nn.Module):
    """Stands for a skipped layer."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden


class FrozenPrefix:
    """Hidden states that enter the first adapted layer, by record.

    Args:
        backbone: The base with its adapters.
        num_layers: Its layers.
        top_layers: How many of them are adapted.
        kept: Where to keep them; networks on one base that adapt equally many layers may share it.

    Raises:
        UsageError: The base's layers are not one list that can be skipped.
    """

    def __init__(self, backbone: nn.Module, num_layers: int, top_layers: int, kept: Kept) -> None:
        lists = [
            module
            for module in backbone.modules()
            if isinstance(module, nn.ModuleList) and len(module) == num_layers
        ]
        if len(lists) != 1:
            raise UsageError(
                "training.cache_frozen_layers: this base's layers are not one list; set it to false"
            )
        self._backbone = backbone
        self._layers = lists[0]
        self._first = num_layers - top_layers
        self._kept = kept

    def fill(self, input_ids: Tensor, attention_mask: Tensor, records: Sequence[TokenIds]) -> None:
        """Computes and keeps what is missing of a batch.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            records: The B records' own token ids, without padding.
        """
        missing = [row for row, record in enumerate(records) if record not in self._kept]
        if not missing:
            return
        seen: list[Tensor] = []
        handle = self._layers[self._first].register_forward_pre_hook(
            lambda _, arguments, keywords: seen.append(_hidden(arguments, keywords)),
            with_kwargs=True,
        )
        try:
            with torch.no_grad():
                self._backbone(input_ids=input_ids[missing], attention_mask=attention_mask[missing])
        finally:
            handle.remove()
        for row, hidden in zip(missing, seen[0], strict=True):
            self._kept[records[row]] = hidden[: len(records[row])].clone()

    @contextmanager
    def skipping(self, records: Sequence[TokenIds], longest: int) -> Iterator[None]:
        """Within it, a forward pass of these records starts at the first adapted layer.

        Args:
            records: The B records' token ids; all of them were filled.
            longest: T.
        """
        hidden = nn.utils.rnn.pad_sequence([self._kept[r] for r in records], batch_first=True)
        assert hidden.shape[1] == longest
        skipped = [self._layers[index] for index in range(self._first)]

        def start_here(
            _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if arguments:
                return (hidden, *arguments[1:]), keywords
            return arguments, {**keywords, "hidden_states": hidden}

        handle = self._layers[self._first].register_forward_pre_hook(start_here, with_kwargs=True)
        try:
            for index in range(self._first):
                self._layers[index] = _PassThrough()
            yield
        finally:
            handle.remove()
            for index, layer in enumerate(skipped):
                self._layers[index] = layer


def _hidden(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return hidden
