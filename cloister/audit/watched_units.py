"""Units that note when they are looked at before the charge that pays for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from cloister.ledger.ledger import Ledger
from cloister.training.units import UnitExamples


class WatchedUnits(Sequence[UnitExamples]):
    """A site's units that count the looks at them before the round's charge.

    For a site whose every charge is released, as in an audit: then charges have odd numbers in its
    ledger, and the entries after which nothing may be looked at have even ones.

    Args:
        units: The units.
        ledger: The site's; None: it is not asked yet.

    Attributes:
        ledger: The site's; None: nothing counts.
        early: Number of looks before a charge.
        looks: Number of all looks.
        taken: The places that were looked at one by one, in order.
    """

    def __init__(self, units: Sequence[UnitExamples], ledger: Ledger | None = None) -> None:
        self._units, self.ledger = units, ledger
        self.early = self.looks = 0
        self.taken: list[int] = []

    def _look(self) -> None:
        self.looks += 1
        if self.ledger is not None and self.ledger.head.seq % 2 == 0:
            self.early += 1

    def __len__(self) -> int:
        self._look()
        return len(self._units)

    @overload
    def __getitem__(self, place: int) -> UnitExamples: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[UnitExamples]: ...

    def __getitem__(self, place: int | slice) -> UnitExamples | Sequence[UnitExamples]:
        self._look()
        if not isinstance(place, slice):
            self.taken.append(int(place))
        return self._units[place]
