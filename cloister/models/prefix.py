"""The frozen lower layers, computed once for each record.

Where adapters sit in the top layers only, what enters the first of them never changes: the base is
frozen and no dropout runs. It is kept for each record, and later passes start there. Where nothing
but the head trains, what leaves the last layer is kept in the same way. What does not fit any more
is computed each time. This moves time and memory, never the result.

Rounding is a part of the result under privacy: in a batch of a fixed shape, states are computed in
a fixed shape too (`training.shapes`), so that they are the record's alone, and kept apart from
those that other batches computed.

Shapes: B records, T tokens of the longest, t tokens of one record, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.models.layers import layer_list, without_cache
from cloister.tasks.task import BatchShape, Example

# A record's token ids, and which of two texts each is of where it has two.
Read = tuple[tuple[int, ...], tuple[int, ...]]

GIB = 2**30

# The fixed length of a batch and the row counts that go with it: two studies that were proven with
# others may not use each other's states.
Fixed = tuple[int, tuple[int, ...]]

# States of batches that were padded to the longest of their records.
ANY_LENGTH: Fixed = (0, ())


class KeptStates:
    """Hidden states [t, H] by record, padded length and row counts, up to a size in memory.

    Nothing is dropped to make room: every record is drawn equally often, so what came first serves
    as well as what came last.
    """

    def __init__(self) -> None:
        self._states: dict[tuple[Read, Fixed], Tensor] = {}
        self._bytes = 0

    def get(self, record: Read, fixed: Fixed = ANY_LENGTH) -> Tensor | None:
        """Returns a record's states; None where they are not kept.

        Args:
            record: What the base reads of it.
            fixed: In what they were computed; `ANY_LENGTH`: beside any others.
        """
        return self._states.get((record, fixed))

    def add(
        self, record: Read, states: Tensor, max_bytes: float, fixed: Fixed = ANY_LENGTH
    ) -> None:
        """Keeps a copy of a record's states if all kept then come to at most `max_bytes`."""
        size = states.numel() * states.element_size()
        if (record, fixed) not in self._states and self._bytes + size <= max_bytes:
            self._states[record, fixed] = states.clone()
            self._bytes += size


class _PassThrough(nn.Module):
    """Stands for a skipped layer: has its attributes, and answers in its form.

    Args:
        layer: The skipped one.
        others: Values that it returns beside the hidden states; None: it returns these alone.
    """

    def __init__(self, layer: nn.Module, others: int | None) -> None:
        super().__init__()
        # In a tuple, so that its parameters are not this module's.
        self._layer, self._others = (layer,), others

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # encoders may ask a layer what it is (ModernBERT, Gemma 3)
            return getattr(self.__dict__["_layer"][0], name)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        hidden = _hidden(arguments, keywords)
        return hidden if self._others is None else (hidden, *(None,) * self._others)


class _PrefixEndedError(Exception):
    """Ends a forward pass at the first adapted layer: what lies above is not needed."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("the first adapted layer is reached")
        self.hidden = hidden


class FrozenPrefix:
    """Hidden states that enter the first adapted layer, by record; what leaves the last layer where
    none is adapted.

    Args:
        backbone: The base with its adapters.
        num_layers: Its layers.
        top_layers: How many of them are adapted; 0: none.
        kept: Where to keep them; networks on one base that adapt equally many layers may share it.
        max_gib: Most memory that is kept, in GiB.

    Attributes:
        is_apart: Whether it runs within `apart`.

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
        found = layer_list(backbone, num_layers)
        if found is None:
            raise UsageError(
                "machine.frozen_cache_gib: this base's layers are not one list; set it to 0"
            )
        self._backbone = backbone
        self._layers = found[1]
        self._others: int | None = None
        self._first = num_layers - top_layers
        self._kept = kept
        self._max_bytes = max_gib * GIB
        self.is_apart = False

    def states(
        self,
        inputs: Mapping[str, Tensor],
        examples: Sequence[Example],
        shape: BatchShape | None = None,
    ) -> Tensor:
        """Returns the states that enter the first adapted layer, [B, T, H], and keeps new ones.

        They are zero at padding.

        Args:
            inputs: What the base reads, each [B, T] (`Network.inputs`).
            examples: The records; rows beyond them are dummies.
            shape: The batch's fixed shape, where it has one.

        Guarantees:
            With a fixed shape, a record's states are a function of its own tokens, bit for bit,
            whether they were kept or not.
        """
        fixed = ANY_LENGTH if shape is None else (shape.length, shape.counts)
        records = [(example.input_ids, example.segments) for example in examples]
        found = [self._kept.get(record, fixed) for record in records]
        missing = [row for row, states in enumerate(found) if states is None]
        if missing:
            rows = missing if shape is None else _filled(missing, inputs["attention_mask"], shape)
            computed = self._compute({name: tensor[rows] for name, tensor in inputs.items()})
            for row, hidden in zip(missing, computed, strict=False):
                states = hidden[: len(examples[row].input_ids)]
                self._kept.add(records[row], states, self._max_bytes, fixed)
                found[row] = states
        present = [states for states in found if states is not None]
        if shape is None:
            return nn.utils.rnn.pad_sequence(present, batch_first=True)
        whole = present[0].new_zeros(shape.rows, shape.length, present[0].shape[1])
        for row, states in enumerate(present):
            whole[row, : len(states)] = states
        return whole

    def each_layer(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the output of each layer, [B, T, H], before the base's final norm; keeps nothing.

        Args:
            inputs: What the base reads, each [B, T] (`Network.inputs`).
        """
        found: list[Tensor] = []

        def note(_: nn.Module, __: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        handles = [layer.register_forward_hook(note) for layer in self._layers]
        try:
            self._compute(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Context in which no kept state is used, and at whose end new ones are dropped."""
        before, self._kept = (self._kept, self.is_apart), KeptStates()
        self.is_apart = True
        try:
            yield
        finally:
            self._kept, self.is_apart = before

    def _compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        def stop_here(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            raise _PrefixEndedError(_hidden(arguments, keywords))

        def note_form(_: nn.Module, __: Any, output: Any) -> None:
            self._others = len(output) - 1 if isinstance(output, tuple) else None

        def end_here(_: nn.Module, __: Any, output: Any) -> None:
            raise _PrefixEndedError(output[0] if isinstance(output, tuple) else output)

        noting = self._layers[0].register_forward_hook(note_form)
        if self._first < len(self._layers):
            first = self._layers[self._first]
            handle = first.register_forward_pre_hook(stop_here, with_kwargs=True)
        else:
            handle = self._layers[-1].register_forward_hook(end_here)
        try:
            with torch.no_grad():
                self._backbone(**inputs, **without_cache(self._backbone))
        except _PrefixEndedError as reached:
            return reached.hidden
        finally:
            handle.remove()
            noting.remove()
        raise UsageError(
            "machine.frozen_cache_gib: this base does not call its layers; set it to 0"
        )

    @contextmanager
    def skipping(self, hidden: Tensor) -> Iterator[None]:
        """Context in which a forward pass starts at the first adapted layer, from `hidden`."""
        skipped = [self._layers[index] for index in range(self._first)]

        def start_here(
            _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if arguments:
                return (hidden, *arguments[1:]), keywords
            return arguments, {**keywords, "hidden_states": hidden}

        for index in range(self._first):
            self._layers[index] = _PassThrough(self._layers[index], self._others)
        first = self._layers[min(self._first, len(self._layers) - 1)]
        handle = first.register_forward_pre_hook(start_here, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            for index, layer in enumerate(skipped):
                self._layers[index] = layer


def _filled(missing: list[int], attention_mask: Tensor, shape: BatchShape) -> list[int]:
    """Rows to compute: the missing ones, and others up to the next row count of the shape.

    Others are dummies where there are any, or records that are computed twice; one of them has
    padding where no missing row has (`training.shapes.cut`).
    """
    others = [row for row in range(shape.rows) if row not in set(missing)]
    others.sort(key=lambda row: int(attention_mask[row].sum()))
    no_padding = bool(attention_mask[missing].all()) and shape.counts != (1,)
    needed = len(missing) + no_padding
    rows = min(count for count in shape.counts if count >= needed)
    return [*missing, *others[: rows - len(missing)]]


def _hidden(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return hidden
