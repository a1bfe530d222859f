"""What one unit can change in a sum over units: held-out units' statistics, or votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from cloister.audit.statistics import Check, Floats, exact_check
from cloister.models.network import Network
from cloister.privacy.clipping import ClippedSum
from cloister.tasks.task import Batch
from cloister.training.units import UnitExamples

# The sum over some units, by a network.
Total = Callable[[Network, Sequence[UnitExamples]], ClippedSum]


def values_of(total: ClippedSum) -> Floats:
    """Returns the values of a sum of one tensor in steps of its grid, [D]."""
    return total.tensors[0].double().numpy()


@dataclass(frozen=True)
class UnitInfluence:
    """What each unit adds to a sum.

    Attributes:
        longest: The largest norm of what leaving a unit out changes.
        companions: Units that add something else among the others than alone.
        alone: The sum of each unit alone.
    """

    longest: float
    companions: int
    alone: tuple[ClippedSum, ...]

    @classmethod
    def measured(
        cls, total: Total, network: Network, units: Sequence[UnitExamples]
    ) -> UnitInfluence:
        """Leaves out each unit in turn."""
        units = list(units)
        whole, longest, companions = total(network, units), 0.0, 0
        alone = tuple(total(network, [unit]) for unit in units)
        for place, own in enumerate(alone):
            rest = total(network, units[:place] + units[place + 1 :])
            moved = values_of(whole) - values_of(rest)
            longest = max(longest, float(np.linalg.norm(moved)) * whole.grid)
            companions += not np.array_equal(moved, values_of(own))
        return cls(longest, companions, alone)

    def checks(
        self, unit: str, total: Total, network: Network, units: Sequence[UnitExamples], block: int
    ) -> list[Check]:
        """Tests that a unit's part depends on nothing else.

        Args:
            unit: What a unit is called in the names of the checks.
            total: Sums units.
            network: Computes them.
            units: The units.
            block: Number of units that are summed together.
        """
        return [
            exact_check(
                f"companions of a {unit}",
                "units that add something else alone than among others",
                self.companions,
            ),
            exact_check(
                f"many {unit}s",
                "whether the sum of more units than are summed together is not that of each, bit "
                "for bit",
                self._is_apart(total, network, units, block),
            ),
            exact_check(
                f"failing {unit}",
                "whether a record on which the network fails ends the round, or changes what "
                "others add",
                _is_noticed(total, network, units),
            ),
        ]

    def _is_apart(
        self, total: Total, network: Network, units: Sequence[UnitExamples], block: int
    ) -> bool:
        """Whether two units in turn, more than a block of them, add up to something else."""
        turns = [place % min(2, len(units)) for place in range(block + 3)]
        found = values_of(total(network, [units[place] for place in turns]))
        expected = np.sum([values_of(self.alone[place]) for place in turns], axis=0)
        return not np.array_equal(found, expected)


def _is_noticed(total: Total, network: Network, units: Sequence[UnitExamples]) -> bool:
    """Whether a failing record differs from one that is not there."""
    tokens = units[0][0].input_ids
    fragile = cast(Network, _Fragile(network, tokens))
    without = [tuple(one for one in unit if one.input_ids != tokens) for unit in units]
    try:
        return not np.array_equal(
            values_of(total(fragile, units)), values_of(total(fragile, without))
        )
    except _FailsError:
        return True


class _FailsError(Exception):
    """Stands for whatever a pass may raise."""


class _Fragile:
    """A network that fails on the records of certain tokens."""

    def __init__(self, network: Network, tokens: tuple[int, ...]) -> None:
        self._network, self._tokens = network, tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def logits(self, batch: Batch) -> Any:
        return self._passed(self._network.logits, batch)

    def token_losses(self, batch: Batch) -> Any:
        return self._passed(self._network.token_losses, batch)

    def pooled(self, batch: Batch) -> Any:
        return self._passed(self._network.pooled, batch)

    def _passed(self, passed: Callable[[Batch], Any], batch: Batch) -> Any:
        if batch.examples[0].input_ids == self._tokens:
            raise _FailsError
        return passed(batch)
