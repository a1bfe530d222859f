"""Statistics of chat models: the log-likelihood of the assistant's tokens, and their number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cloister.privacy.noised_ratio import Floats, Ratio
from cloister.tasks.tally.loss_tally import TokenLossTally
from cloister.tasks.tally.unit_statistics import DETAIL, MOST_LOSS, picked, scaled_by

# Units; tokens; their losses.
_LONGEST = math.sqrt(DETAIL**2 + 2)
_UNITS, _TOKENS, _LOSSES = 0, 1, 2


@dataclass(frozen=True)
class TokenStatistics:
    """Perplexity over all of the assistant's tokens.

    A conversation of greatest length whose tokens have a mean loss of `MOST_LOSS` fits into the
    bound.

    Attributes:
        tally: The task's tally.
    """

    tally: TokenLossTally
    names: tuple[str, ...] = ("units", "tokens", "token losses")

    @cached_property
    def scales(self) -> Floats:
        """What each statistic is multiplied by."""
        longest = self.tally.task.max_length
        return scaled_by([(1, DETAIL), (1, 1 / longest), (1, 1 / longest / MOST_LOSS)], _LONGEST)

    def vectors(self, rows: Floats) -> Floats:
        """Returns each unit's statistics; see `Statistics.vectors`."""
        return np.stack([rows[:, 0], rows[:, 3], rows[:, 2]], axis=1)

    @cached_property
    def ratios(self) -> Mapping[str, Ratio]:
        """The exponential of the mean loss of a token."""
        losses, tokens = picked(3, _LOSSES), picked(3, _TOKENS)
        return {"perplexity": Ratio(losses, tokens, is_log=True)}

    @property
    def by_class(self) -> Mapping[str, Mapping[str, Ratio]]:
        """Returns nothing: a chat has no classes."""
        return {}

    def tables(self, sums: Floats) -> Mapping[str, Any]:
        """Returns the noised numbers of units and tokens."""
        return {"counts": {"units": float(sums[_UNITS]), "tokens": float(sums[_TOKENS])}}
