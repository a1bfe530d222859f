"""Stores tensors by record, up to a size in memory, for the caches of what does not change.

`models.prefix` caches the states that enter the first adapted layer, `models.head_inputs` what the
head reads. Both look a record up by the inputs of the base and by the batch's fixed shape.

Shapes: t tokens of one record, H hidden units.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    def __reduce__(self) -> tuple[type[Filled], tuple[()]]:
        return Filled, ()  # in another process the caches are empty (`KeptStates`)


# A cached tensor and its key, as another process gets them.
Entry = tuple[tuple[bytes, bytes, Fixed], NDArray[np.float32]]


class KeptStates:
    """Tensors by record, padded length and row counts, up to a size in memory.

    Nothing is evicted one by one: every record is drawn equally often, so older states are as
    useful as newer ones. Sent to another process, it is empty there.

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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_states": {}, "_fixed": {}, "_own": 0}

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


class StateCache:
    """What every cache of records' tensors has: a storage, a limit, and contexts without either.

    Args:
        kept: The storage; caches of the same tensors may share it.
        max_bytes: Largest size of the cache, and of those that it shares memory with, in bytes.

    Attributes:
        is_apart: Whether it is inside of `apart`.
        takes_any: Whether a batch without a fixed shape takes tensors of any shape
            (`models.handed_states`).
    """

    def __init__(self, kept: KeptStates, max_bytes: float) -> None:
        self._kept = kept
        self._max_bytes = max_bytes
        self.is_apart = self.takes_any = False

    @property
    def kept(self) -> KeptStates:
        """Returns the storage."""
        return self._kept

    def lacks(self, record: Read, fixed: Fixed) -> bool:
        """Returns whether what is computed of a record, in a fixed shape, would be cached."""
        kept = self._current()
        return not kept.is_closed and kept.get(record, fixed) is None

    def _current(self) -> KeptStates:
        """Returns the storage, without tensors that are no longer valid."""
        return self._kept

    def take(self, made_with: bytes, entries: Iterable[Entry]) -> None:
        """Caches what another process cached with parameters that `made_with` identifies; nothing
        if those of this process's cache were others."""
        if made_with == self._kept.made_with:
            self._kept.take(entries, self._max_bytes)

    def share(self, processes: int) -> None:
        """Lowers the limit to that of one of so many forks of this process."""
        self._max_bytes = self._kept.share_of(self._max_bytes, processes)

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
