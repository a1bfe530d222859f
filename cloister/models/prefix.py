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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.models.kept_states import ANY_LENGTH, GIB, KeptStates, StateCache
from cloister.models.layers import layer_list, without_cache
from cloister.tasks.task import BatchShape, Example


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


class FrozenPrefix(StateCache):
    """The cache of the hidden states that enter the first adapted layer, by record.

    If no layer is adapted, they are the output of the last layer.

    Args:
        backbone: The base with its adapters.
        num_layers: Number of its layers.
        top_layers: Number of adapted layers; 0: none.
        kept: The storage; networks on one base with equally many adapted layers may share it.
        max_gib: Largest size of the cache, in GiB.

    Attributes:
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
        super().__init__(kept, max_gib * GIB)
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
