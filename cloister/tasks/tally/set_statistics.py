"""Statistics of tasks in which a record has a set: labels of a text, or entities of a sentence.

A record may have any number of things. `USUAL` of them fit into the bound; a record with more is
scaled down as a whole, so F1 is then that of weighted records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cloister.privacy.noised_ratio import Floats, Ratio
from cloister.tasks.tally.set_tally import SetTally
from cloister.tasks.tally.unit_statistics import DETAIL, MOST_LOSS, picked, scaled_by

# Right, wrong or missed things of one record that fit into the bound: four of five sentences of
# ncbi_disease's training set have at most two diseases, and few have more than four.
USUAL = 4
# Units; exactly right or not; loss; all things; things by kind.
_LONGEST = math.sqrt(1 + 4 * DETAIL**2)
_UNITS, _EXACT, _INEXACT, _LOSS, _ALL, _KINDS = 0, 1, 2, 3, 4, 7
_WHAT = ("right", "wrong", "missed")


@dataclass(frozen=True)
class SetStatistics:
    """True positives, false positives and missed things, in all and by kind, and loss.

    Attributes:
        tally: The task's tally.
    """

    tally: SetTally

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics."""
        kinds = [f"{what} {kind}" for what in _WHAT for kind in self.tally.kinds]
        return ("units", "exact", "inexact", "loss", *_WHAT, *kinds)

    @cached_property
    def scales(self) -> Floats:
        """What each statistic is multiplied by."""
        kinds = 3 * len(self.tally.kinds)
        groups = [(3, DETAIL), (1, DETAIL / MOST_LOSS), (3, 1 / USUAL), (kinds, DETAIL / USUAL)]
        return scaled_by(groups, _LONGEST)

    def vectors(self, rows: Floats) -> Floats:
        """Returns each unit's statistics; see `Statistics.vectors`."""
        kinds = len(self.tally.kinds)
        right, given, true = rows[:, 3:].reshape(len(rows), 3, kinds).swapaxes(0, 1)
        parts = (right, given - right, true - right)
        return np.concatenate(
            [
                np.stack(
                    [
                        rows[:, 0],
                        rows[:, 1],
                        rows[:, 0] - rows[:, 1],
                        np.minimum(rows[:, 2], MOST_LOSS),
                        *(part.sum(axis=1) for part in parts),
                    ],
                    axis=1,
                ),
                *parts,
            ],
            axis=1,
        )

    @cached_property
    def ratios(self) -> Mapping[str, Ratio]:
        """F1, precision and recall over all things; exact matches of labels; mean loss."""
        size = len(self.names)
        right, wrong, missed = (picked(size, _ALL + n) for n in range(3))
        found = _three(right, wrong, missed)
        if self.tally.shares:
            both = picked(size, _EXACT, _INEXACT)
            found = {"micro_f1": found.pop("f1"), **found}
            found["exact_match"] = Ratio(picked(size, _EXACT), both, high=1.0)
        found["loss"] = Ratio(picked(size, _LOSS), picked(size, _UNITS), high=MOST_LOSS)
        return found

    @cached_property
    def by_class(self) -> Mapping[str, Mapping[str, Ratio]]:
        """F1, precision and recall of each kind."""
        size, kinds = len(self.names), len(self.tally.kinds)
        return {
            kind: _three(*(picked(size, _KINDS + part * kinds + n) for part in range(3)))
            for n, kind in enumerate(self.tally.kinds)
        }

    def tables(self, sums: Floats) -> Mapping[str, Any]:
        """Returns the noised numbers of right, wrong and missed things."""
        return {"counts": {what: float(sums[_ALL + n]) for n, what in enumerate(_WHAT)}}


def _three(right: Floats, wrong: Floats, missed: Floats) -> dict[str, Ratio]:
    return {
        "f1": Ratio(2 * right, 2 * right + wrong + missed, high=1.0),
        "precision": Ratio(right, right + wrong, high=1.0),
        "recall": Ratio(right, right + missed, high=1.0),
    }
