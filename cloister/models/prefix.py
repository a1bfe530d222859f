"""Caches the states of the frozen lower layers, so that they are computed once for each record.

If only the top layers have adapters, the input of the first adapted layer never changes: the base
is frozen and no dropout runs. It is cached for each record, and later passes start there. If only
the head trains, the output of the last layer is cached in the same way. States that do not fit into
the cache are computed each time. This changes time and memory, never the result.

Under privacy, rounding is part of the result: in a batch of a fixed shape, states are computed in a
fixed shape too (`training.shapes`), so that they depend on the record alone, and cached apart from
those of other batches.

Shapes: B records, T tokens of the longest, t tokens of one record, H hidden units.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.models.layers import layer_list, without_cache
from cloister.tasks.task import BatchShape, Example

# A record's token ids, and for two texts to which of them each token belongs.
Read = tuple[tuple[int, ...], tuple[int, ...]]

GIB = 2**30

# The fixed length of a batch and its possible row counts: studies that were proven with different
# ones must not share states.
Fixed = tuple[int, tuple[int, ...]]

# The key of states from batches that were padded to their longest record.
ANY_LENGTH: Fixed = (0, ())
# A cached tensor's memory besides its values and its record's tokens: of the objects of Python and
# torch, measured on 30,000 entries (573 bytes, x86-64, torch 2.13) and rounded up.
ENTRY_BYTES = 600
# Type of token ids in a key, 4 bytes each: a tuple of integers takes 40 (`training.packed`).
_IDS = "i"


@dataclass
class Filled:
    """How much memory caches that share one limit use together, in bytes."""

    bytes: int = 0


# A cached tensor and its key, as another process gets them.
Entry = tuple[tuple[bytes, bytes, Fixed], NDArray[np.float32]]


class KeptStates:
    """Tensors by record, padded length and row counts, up to a size in memory.

    Nothing is evicted one by one: every record is drawn equally often, so older states are as
    useful as newer ones.

    Args:
        filled: The memory in use, shared with other caches of the same limit; None: its own.
        is_closed: Whether it takes nothing, so that everything is computed each time.

    Attributes:
        made_with: Identifies the parameters that the states were computed with, where these may
            change (`cloister.models.head_inputs`).
        is_closed: The argument.
    """

    def __init__(self, filled: Filled | None = None, *, is_closed: bool = False) -> None:
        self._states: dict[tuple[bytes, bytes, Fixed], Tensor] = {}
        self.is_closed = is_closed
        self._filled = Filled() if filled is None else filled
        self._own = 0
        self._fixed: dict[Fixed, None] = {}  # those of the states, in order of their first use
        self.made_with = b""

    def get(
        self, record: Read, fixed: Fixed = ANY_LENGTH, *, takes_any: bool = False
    ) -> Tensor | None:
        """Returns a record's states; None: they are not cached.

        Args:
            record: The record's inputs to the base.
            fixed: The fixed shape in which they were computed; `ANY_LENGTH`: not in a fixed one.
            takes_any: Whether with `ANY_LENGTH` states of any shape will do; they differ between
                shapes by rounding.
        """
        shapes = list(self._fixed) if takes_any and fixed == ANY_LENGTH else [fixed]
        found = (self._states.get(_key(record, shape)) for shape in shapes)
        return next((states for states in found if states is not None), None)

    def add(
        self, record: Read, states: Tensor, max_bytes: float, fixed: Fixed = ANY_LENGTH
    ) -> None:
        """Caches a copy of a record's states if the whole cache is then at most `max_bytes`.

        What identifies the record takes memory too, and counts: of a head's input it is most.
        """
        if self.is_closed:
            return
        key = _key(record, fixed)
        size = states.numel() * states.element_size() + len(key[0]) + len(key[1]) + ENTRY_BYTES
        if key not in self._states and self._filled.bytes + size <= max_bytes:
            self._states[key] = states.clone()
            self._fixed[fixed] = None
            self._filled.bytes += size
            self._own += size

    def share_of(self, max_bytes: float, processes: int) -> float:
        """Returns the limit of each of so many forks, which keep what is cached now together.

        Args:
            max_bytes: The limit of all together.
            processes: Number of forks; each may add an equal part of the room that is left.
        """
        filled = self._filled.bytes
        return filled + max(max_bytes - filled, 0.0) / processes

    def entries(self) -> Iterator[Entry]:
        """Yields everything that is cached, in a form for another process."""
        for key, states in self._states.items():
            yield key, states.cpu().numpy()

    def take(self, entries: Iterable[Entry], max_bytes: float) -> None:
        """Caches what another process cached, with the same parameters, up to `max_bytes`."""
        for (ids, segments, fixed), states in entries:
            record = tuple(array(_IDS, ids)), tuple(array(_IDS, segments))
            self.add(record, torch.from_numpy(states), max_bytes, fixed)

    def forget(self, made_with: bytes) -> None:
        """Removes all states, which were computed with other parameters than these."""
        self._states.clear()
        self._fixed.clear()
        self._filled.bytes -= self._own
        self._own = 0
        self.made_with = made_with


def _key(record: Read, fixed: Fixed) -> tuple[bytes, bytes, Fixed]:
    ids, segments = record
    return array(_IDS, ids).tobytes(), array(_IDS, segments).tobytes(), fixed


class _PassThrough(nn.Module):
    """Replaces a skipped layer: has its attributes, and returns values in its form.

    Args:
        layer: The skipped layer.
        others: Number of values that it returns beside the hidden states; None: it returns only
            these.
    """

    def __init__(self, layer: nn.Module, others: int | None) -> None:
        super().__init__()
        # In a tuple, so that torch does not register its parameters here.
        self._layer, self._others = (layer,), others

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # encoders may read a layer's attributes (ModernBERT, Gemma 3)
            return getattr(self.__dict__["_layer"][0], name)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        hidden = _hidden(arguments, keywords)
        return hidden if self._others is None else (hidden, *(None,) * self._others)


class _PrefixEndedError(Exception):
    """Ends a forward pass at the first adapted layer, because the rest is not needed."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("the first adapted layer is reached")
        self.hidden = hidden


class FrozenPrefix:
    """The cache of the hidden states that enter the first adapted layer, by record.

    If no layer is adapted, they are the output of the last layer.

    Args:
        backbone: The base with its adapters.
        num_layers: Number of its layers.
        top_layers: Number of adapted layers; 0: none.
        kept: The storage; networks on one base with equally many adapted layers may share it.
        max_gib: Largest size of the cache, in GiB.

    Attributes:
        is_apart: Whether it is inside of `apart`.
        takes_any: Whether a batch without a fixed shape takes states of any shape
            (`models.handed_states`).
        skips_all: Whether it ends after the last layer, because no layer is adapted.

    Raises:
        UsageError: The base's layers are not one list, so they cannot be skipped.
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
        self.skips_all = top_layers == 0
        self._kept = kept
        self._max_bytes = max_gib * GIB
        self.is_apart = self.takes_any = False

    def states(
        self,
        inputs: Mapping[str, Tensor],
        examples: Sequence[Example],
        shape: BatchShape | None = None,
    ) -> Tensor:
        """Returns the states that enter the first adapted layer, [B, T, H], and caches new ones.

        They are zero at padding.

        Args:
            inputs: The base's inputs, each [B, T] (`Network.inputs`).
            examples: The records; rows beyond them are dummies.
            shape: The batch's fixed shape; None: it has none.

        Guarantees:
            With a fixed shape, a record's states are a function of its own tokens, bit for bit,
            whether they were cached or not.
        """
        fixed = ANY_LENGTH if shape is None else (shape.length, shape.counts)
        records = [(example.input_ids, example.segments) for example in examples]
        found = [self._kept.get(record, fixed, takes_any=self.takes_any) for record in records]
        missing = [row for row, states in enumerate(found) if states is None]
        if missing:
            rows = missing if shape is None else filled_up(missing, inputs["attention_mask"], shape)
            computed = self._compute({name: tensor[rows] for name, tensor in inputs.items()})
            for row, hidden in zip(missing, computed, strict=False):
                states = hidden[: len(examples[row].input_ids)]
                self._kept.add(records[row], states, self._max_bytes, fixed)
                found[row] = states
        present = [states for states in found if states is not None]
        # As wide as the batch, whose longest record may be cached and not be among these.
        width = inputs["attention_mask"].shape[1]
        height = len(present) if shape is None else shape.rows
        whole = present[0].new_zeros(height, width, present[0].shape[1])
        for row, states in enumerate(present):
            whole[row, : len(states)] = states
        return whole

    @property
    def kept(self) -> KeptStates:
        """Returns the storage."""
        return self._kept

    def lacks(self, example: Example, fixed: Fixed) -> bool:
        """Returns whether a record's states would be cached once they are computed."""
        record = example.input_ids, example.segments
        return not self._kept.is_closed and self._kept.get(record, fixed) is None

    def take(self, made_with: bytes, entries: Iterable[Entry]) -> None:
        """Caches what another process cached with parameters that `made_with` identifies; nothing
        if those of this process's cache were others."""
        if made_with == self._kept.made_with:
            self._kept.take(entries, self._max_bytes)

    def share(self, processes: int) -> None:
        """Lowers the limit to that of one of so many forks of this process."""
        self._max_bytes = self._kept.share_of(self._max_bytes, processes)

    def each_layer(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns each layer's output, [B, T, H], before the base's final norm; caches nothing.

        Args:
            inputs: The base's inputs, each [B, T] (`Network.inputs`).
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
    def apart(self, *, keeping: bool = True) -> Iterator[None]:
        """Enters a context without cached states; states computed in it are dropped at its end.

        Args:
            keeping: Whether states are cached until then.
        """
        before, self._kept = (self._kept, self.is_apart), KeptStates(is_closed=not keeping)
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
        """Makes forward passes start at the first adapted layer, from `hidden`, in the context."""
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


def filled_up(missing: list[int], attention_mask: Tensor, shape: BatchShape) -> list[int]:
    """Returns the rows to compute: the missing ones, and others up to the shape's next row count.

    The others are dummies, if there are any, or records that are computed twice; one of them has
    padding if no missing row has (`training.shapes.cut`).
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
