"""Caches what the head reads of each record, for passes in which only the head trains.

In a linear probe, and in the first rounds of a study with `training.probe_rounds`, nothing before
the head changes: base and adapters give a record the same vector at every step. It is computed once
and cached, so that later passes run the head alone. This changes time and memory, never the result.

As soon as a parameter before the head changes, the cache is emptied. As in `cloister.models.prefix`
a vector from a batch of a fixed shape is computed in a fixed shape and cached for that shape only,
so that it depends on the record alone, bit for bit.

Shapes: B records, T tokens of the longest, t tokens of one record, H hidden units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor, nn

from cloister.models.kept_states import ANY_LENGTH, KeptStates, StateCache
from cloister.models.prefix import filled_up
from cloister.tasks.task import Batch

# Called for every parameter before each pass: six times as fast as a loop.
_TRAINS, _VERSION = attrgetter("requires_grad"), attrgetter("_version")


class HeadInputs(StateCache):
    """The cache of the head's inputs, by record: [H] of a sequence, [t, H] of tokens.

    Args:
        before: All parameters that are used before the head.
        kept: The storage.
        max_bytes: Largest size of the cache, and of those that it shares memory with, in bytes.
        origin: Differs between networks that may share the storage but not each other's vectors;
            empty: they may, because base and pooling alone decide.
    """

    def __init__(
        self,
        before: Sequence[nn.Parameter],
        kept: KeptStates,
        max_bytes: float,
        origin: bytes = b"",
    ) -> None:
        super().__init__(kept, max_bytes)
        self._before = tuple(before)
        # torch counts each change of a tensor in place, which tells cheaply which ones to hash.
        self._first = list(map(_VERSION, self._before))
        self._seen = list(self._first)
        self._origin = self._made_with = origin

    def can_serve(self) -> bool:
        """Returns whether nothing before the head trains now."""
        return not any(map(_TRAINS, self._before))

    def of(self, batch: Batch, compute: Callable[[Batch], Tensor]) -> Tensor:
        """Returns the head's inputs of a batch, [B, H] or [B, T, H], and caches new ones.

        They are zero in rows without a record, and at padding.

        Args:
            batch: The records, in a fixed shape or not.
            compute: Computes the head's inputs of such a batch.

        Guarantees:
            With a fixed shape, a record's vector is a function of its own tokens and the parameters
            before the head, bit for bit, whether it was cached or not.
        """
        kept = self._current()
        shape = batch.shape
        fixed = ANY_LENGTH if shape is None else (shape.length, shape.counts)
        records = [(example.input_ids, example.segments) for example in batch.examples]
        found = [kept.get(record, fixed, takes_any=self.takes_any) for record in records]
        missing = [row for row, vector in enumerate(found) if vector is None]
        if missing:
            rows = _rows_to_compute(batch, missing)
            with torch.no_grad():
                computed = compute(_rows_of(batch, rows))
            for vector, row in zip(computed, rows, strict=True):
                if row < len(records) and found[row] is None:
                    own = vector if vector.dim() == 1 else vector[: len(records[row][0])]
                    kept.add(records[row], own, self._max_bytes, fixed)
                    found[row] = own
        present = [vector for vector in found if vector is not None]
        if shape is None:
            return nn.utils.rnn.pad_sequence(present, batch_first=True)
        hidden = present[0].shape[-1]
        if present[0].dim() == 1:
            whole = present[0].new_zeros(shape.rows, hidden)
            whole[: len(present)] = torch.stack(present)
            return whole
        whole = present[0].new_zeros(shape.rows, shape.length, hidden)
        for row, vector in enumerate(present):
            whole[row, : len(vector)] = vector
        return whole

    def _current(self) -> KeptStates:
        """Returns the storage, emptied if its vectors were computed with other parameters."""
        versions = list(map(_VERSION, self._before))
        if versions != self._seen:
            self._seen = versions
            self._made_with = self._digest(versions)
        if self._kept.made_with != self._made_with:
            self._kept.forget(self._made_with)
        return self._kept

    def _digest(self, versions: Sequence[int]) -> bytes:
        """Returns the SHA-256 of every parameter that was changed since it was loaded."""
        found = hashlib.sha256(self._origin)
        for number, parameter in enumerate(self._before):
            if versions[number] != self._first[number]:
                values = parameter.detach().cpu().reshape(-1).view(torch.uint8)
                found.update(b"%d:" % number)
                found.update(values.numpy().tobytes())
        return found.digest()


def _rows_to_compute(batch: Batch, missing: list[int]) -> list[int]:
    """Returns the rows that are computed for the missing ones, records before dummies."""
    if batch.shape is None:
        return missing
    rows = filled_up(missing, batch.attention_mask, batch.shape)
    return sorted(rows, key=lambda row: row >= len(batch.examples))


def _rows_of(batch: Batch, rows: list[int]) -> Batch:
    """Returns a batch of some of the rows; records come before dummies."""
    return Batch(
        input_ids=batch.input_ids[rows],
        attention_mask=batch.attention_mask[rows],
        target=batch.target[rows],
        examples=tuple(batch.examples[row] for row in rows if row < len(batch.examples)),
        shape=None if batch.shape is None else replace(batch.shape, rows=len(rows)),
        segments=None if batch.segments is None else batch.segments[rows],
    )
