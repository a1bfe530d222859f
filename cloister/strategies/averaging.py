"""Averages the global adapter over rounds; training continues from the last adapter.

    tail   x̄ ← mean of x after the last ⌈share · T⌉ rounds         (Polyak & Juditsky 1992,
                                                    doi:10.1137/0330046; Ruppert 1988)
    ema    x̄ ← (1 − a) x̄ + a x,   a = (1 − β) / (1 − βᵗ)          (De et al. 2022,
                                                    arXiv:2204.13650, section 4.4)

Every adapter that was sent to the sites is public to them, so an average of them costs no ε. The
noise of single rounds averages out; what the rounds learnt in common stays (Shejwalkar et al. 2022,
arXiv:2210.01864). A learning rate that falls to 0 does much of the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import each

Kind = Literal["ema", "tail"]


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """A running average of adapters.

    Attributes:
        kind: How rounds are weighted.
        decay: β of `ema`.
        share: The part of the study's rounds that `tail` averages, above 0.
        num_rounds: T, rounds of the study.
    """

    kind: Kind
    decay: float
    share: float
    num_rounds: int

    def weight(self, number: int) -> float:
        """Returns the weight a of a round's adapter in the average; 1: the average begins with it.

        Args:
            number: The round, from 1.
        """
        if self.kind == "ema":
            return (1 - self.decay) / (1 - self.decay**number)
        first = self.num_rounds - math.ceil(self.share * self.num_rounds) + 1
        return 1 / max(number - first + 1, 1)

    def add(self, average: Adapter, adapter: Adapter, number: int) -> Adapter:
        """Returns the average after a round.

        Args:
            average: The average before the round; before round 1 it does not count.
            adapter: The global adapter after the round.
            number: The round, from 1.

        Guarantees:
            The average of equal adapters is the same adapter, bit for bit.
        """
        weight = self.weight(number)
        if weight == 1:
            return adapter
        return each(lambda mean, last: mean + weight * (last - mean), average, adapter)
