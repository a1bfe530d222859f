"""The private evaluations of a plan: releases about held-out units, at rounds fixed in advance.

After each declared round a site scores the global adapter on its held-out units. Each unit gives
one vector of statistics of norm at most 1 (`cloister.tasks.tally.unit_statistics`), denominators
included; the site releases their sum with discrete Gaussian noise. No batch is drawn, so the event
is the Gaussian mechanism at rate 1.

The plan's ε is the PLD of its whole list, training and evaluations. That is an upper bound: a unit
is either trained on or held out, so it is in one of the two parts only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloister.errors import RefusedError
from cloister.privacy.events import MOST_NOISE, GaussianEvent
from cloister.privacy.shared_noise import SharedNoise, shared_noise
from cloister.privacy.sharing import Sharing

# Largest norm of one unit's vector; statistics are scaled by public weights to fit into it.
BOUND = 1.0
# All evaluations of a study together cost as much as one of this noise multiplier, unless the
# recipe states the noise: ε = 0.93 at δ = 10⁻⁵ if there were nothing else.
TOGETHER = 4.0
# Bits of a statistic in a sum with shared noise: with 16, counts of units would not fit beside the
# noise (`privacy.shared_noise`).
STATISTIC_BITS = 32
# Least noise multiplier, as of training (`privacy.accounting.SMALLEST_NOISE`).
LEAST = 0.2


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """When a site evaluates, and with which noise.

    Attributes:
        rounds: The rounds after which it does, in rising order.
        noise_multiplier: Noise standard deviation of each statistic over `BOUND`. With shared noise
            it is the total noise of the fewest honest sites of a sum.

    Raises:
        RefusedError: Rounds are not whole numbers in rising order, or the noise is out of range.
    """

    rounds: tuple[int, ...]
    noise_multiplier: float

    def __post_init__(self) -> None:
        whole = all(type(number) is int and number >= 1 for number in self.rounds)
        if not self.rounds or not whole or list(self.rounds) != sorted(set(self.rounds)):
            raise RefusedError(
                "evaluations: rounds from 1 up are needed, each once and in rising order"
            )
        noise = self.noise_multiplier
        if type(noise) not in (int, float) or not LEAST <= noise <= MOST_NOISE:
            raise RefusedError(
                f"evaluations: noise_multiplier {noise!r} given; a number from {LEAST:g} to "
                f"{MOST_NOISE:g} is needed"
            )

    def __str__(self) -> str:
        return f"after rounds {', '.join(map(str, self.rounds))}, noise {self.noise_multiplier:g}"

    def event(self, evaluations: int | None = None) -> GaussianEvent:
        """Returns the event of so many evaluations; None: of all."""
        return GaussianEvent(
            noise_multiplier=self.noise_multiplier,
            sample_rate=1.0,
            steps=len(self.rounds) if evaluations is None else evaluations,
        )

    def shared(self, sharing: Sharing, public_records: int, values: int) -> SharedNoise:
        """Returns each site's share of the noise, under secure aggregation.

        Of the declared units at most half are held out (`data.held_out`), and each moves a
        statistic by at most the bound; a sum has room for four times as many.

        Args:
            sharing: How the noise is shared.
            public_records: A site's declared number of units.
            values: Number of statistics.

        Raises:
            RefusedError: The noise does not fit its bits.
        """
        return shared_noise(
            sharing,
            bound=BOUND,
            noise_multiplier=self.noise_multiplier,
            expected_batch_size=-(-public_records // 2),
            values=values,
        )

    def until(self, last: int) -> Evaluations | None:
        """Returns those up to a round; None: there is none."""
        rounds = tuple(number for number in self.rounds if number <= last)
        return replace(self, rounds=rounds) if rounds else None

    @classmethod
    def from_terms(cls, terms: object) -> Evaluations:
        """Reads the JSON values of a plan.

        Raises:
            ValueError: They are not evaluations.
        """
        if not isinstance(terms, Mapping) or set(terms) != {"rounds", "noise_multiplier"}:
            raise ValueError("the terms are not a plan's")
        values: dict[str, Any] = dict(terms)
        if not isinstance(values["rounds"], list | tuple):
            raise ValueError("the terms are not a plan's")
        return cls(rounds=tuple(values["rounds"]), noise_multiplier=values["noise_multiplier"])


def noise_for(evaluations: int) -> float:
    """Returns the noise multiplier of each evaluation where the recipe states none."""
    return TOGETHER * math.sqrt(evaluations)
