"""Encoded units in a few arrays: a million records of 128 tokens take 0.3 GB, and not 5.

As Python objects each token id is 8 bytes in a tuple and 32 as an integer. Here it is 2 or 4 bytes
of an array, and a unit's examples are made when the unit is drawn.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from cloister.tasks.task import Example

# All records of one unit that count. None: a unit whose records cannot be used; it is drawn like
# any other and contributes zero.
UnitExamples = tuple[Example, ...]


# The first id that two bytes cannot hold.
_SHORT = 2**16


class PackedUnits(Sequence[UnitExamples]):
    """Units in the order in which they were added.

    Args:
        units: The first ones.

    Guarantees:
        `units[i] == added[i]`: an example is equal to the one that was added, whatever it holds.
    """

    def __init__(self, units: Iterable[UnitExamples] = ()) -> None:
        # Ids below 65,536 take two bytes; from the first larger one on all take four.
        self._ids: array[int] = array("H")
        self._targets: array[int] = array("i")
        # Where each example's ids and targets end, and whether its target is one class.
        self._id_ends: array[int] = array("q", [0])
        self._target_ends: array[int] = array("q", [0])
        self._is_class = bytearray()
        # Where each unit's examples end.
        self._unit_ends: array[int] = array("q", [0])
        # By example: those that hold more than ids and targets.
        self._whole: dict[int, Example] = {}
        for unit in units:
            self.add(unit)

    def add(self, unit: UnitExamples) -> None:
        """Adds a unit's encoded records."""
        for example in unit:
            self._add(example)
        self._unit_ends.append(len(self._is_class))

    def __len__(self) -> int:
        return len(self._unit_ends) - 1

    @overload
    def __getitem__(self, index: int) -> UnitExamples: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[UnitExamples, ...]: ...
    def __getitem__(self, index: int | slice) -> UnitExamples | tuple[UnitExamples, ...]:
        if isinstance(index, slice):
            return tuple(self._unit(place) for place in range(*index.indices(len(self))))
        return self._unit(range(len(self))[index])

    def __iter__(self) -> Iterator[UnitExamples]:
        return map(self._unit, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        if len(other) != len(self):
            return False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _unit(self, place: int) -> UnitExamples:
        return tuple(map(self._example, range(self._unit_ends[place], self._unit_ends[place + 1])))

    def _add(self, example: Example) -> None:
        number = len(self._is_class)
        target = example.target
        targets = target if isinstance(target, tuple) else (target,)
        plain = Example(example.input_ids, target)
        if plain != example or not self._packs(example.input_ids, targets):
            self._whole[number] = example
        else:
            self._ids.extend(example.input_ids)
            self._targets.extend(targets)
        self._id_ends.append(len(self._ids))
        self._target_ends.append(len(self._targets))
        self._is_class.append(not isinstance(target, tuple))

    def _packs(self, ids: tuple[int, ...], targets: tuple[int, ...]) -> bool:
        """Whether the arrays can hold an example; ids are made wider where that is enough."""
        try:
            array("i", targets)
            array("i", ids)
        except (OverflowError, TypeError):  # a task of a plug-in may have numbers of other kinds
            return False
        if self._ids.typecode == "H" and ids and not 0 <= min(ids) <= max(ids) < _SHORT:
            self._ids = array("i", self._ids)
        return True

    def _example(self, number: int) -> Example:
        if (whole := self._whole.get(number)) is not None:
            return whole
        ids = tuple(self._ids[self._id_ends[number] : self._id_ends[number + 1]])
        targets = tuple(self._targets[self._target_ends[number] : self._target_ends[number + 1]])
        return Example(ids, targets[0] if self._is_class[number] else targets)
