"""The frozen lower layers, computed once for each record.

Where adapters sit in the top layers only, what enters the first of them never changes: the base is
frozen and no dropout runs. It is kept for each record, and later passes start there. What does not
fit any more is computed each time. This moves time and memory, never the result.

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

GIB = 2**30


class KeptStates:
    """Hidden states [t, H] by record, up to a size in memory.

    Nothing is dropped to make room: every record is drawn equally often, so what came first serves
    as well as what came last.
    """

    def __init__(self) -> None:
        self._states: dict[TokenIds, Tensor] = {}
        self._bytes = 0

    def get(self, record: TokenIds) -> Tensor | None:
        """A record's states, if they are kept."""
        return self._states.get(record)

    def add(self, record: TokenIds, states: Tensor, max_bytes: float) -> None:
        """Keeps a copy of a record's states if all kept then come to at most `max_bytes`."""
        size = states.numel() * states.element_size()
        if record not in self._states and self._bytes + size <= max_bytes:
            self._states[record] = states.clone()
            self._bytes += size


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
        max_gib: Most memory that is kept, in GiB.

    Raises:
        UsageError: The base's layers are not one list that can be skipped.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_layers: int,
        top_layers: int,
        kept: KeptStates,
        max_gib: float,
    ) -> None:
        lists = [
            module
            for module in backbone.modules()
            if isinstance(module, nn.ModuleList) and len(module) == num_layers
        ]
        if len(lists) != 1:
            raise UsageError(
                "training.frozen_cache_gib: this base's layers are not one list; set it to 0"
            )
        self._backbone = backbone
        self._layers = lists[0]
        self._first = num_layers - top_layers
        self._kept = kept
        self._max_bytes = max_gib * GIB

    def states(
        self, input_ids: Tensor, attention_mask: Tensor, records: Sequence[TokenIds]
    ) -> Tensor:
        """What enters the first adapted layer, [B, T, H], zero at padding; new ones are kept.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            records: The B records' own token ids, without padding.
        """
        found = [self._kept.get(record) for record in records]
        missing = [row for row, states in enumerate(found) if states is None]
        if missing:
            computed = self._compute(input_ids[missing], attention_mask[missing])
            for row, hidden in zip(missing, computed, strict=True):
                states = hidden[: len(records[row])]
                self._kept.add(records[row], states, self._max_bytes)
                found[row] = states
        present = [states for states in found if states is not None]
        return nn.utils.rnn.pad_sequence(present, batch_first=True)

    def _compute(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = self._layers[self._first].register_forward_pre_hook(
            lambda _, arguments, keywords: seen.append(_hidden(arguments, keywords)),
            with_kwargs=True,
        )
        try:
            with torch.no_grad():
                self._backbone(input_ids=input_ids, attention_mask=attention_mask)
        finally:
            handle.remove()
        return seen[0]

    @contextmanager
    def skipping(self, hidden: Tensor) -> Iterator[None]:
        """Within it, a forward pass starts at the first adapted layer, with `hidden` [B, T, H]."""
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
