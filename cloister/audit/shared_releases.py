"""Checks that votes and private evaluations with shared noise have in common.

What is accounted is the noise of the fewest honest sites in a sum, on every value. That holds if
each site's share has the plan's size on the plan's grid, and if every sum has the shares of all
sites and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloister.audit.asked_site import expected_charges
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import shares_drawn
from cloister.audit.secure_sums import AskedSums, SecureSums, fewest_honest
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.client.site import Site
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.sharing import Sharing

# Rounds that are asked once more under other ledgers, with the same seed, study and names: noise
# that follows from these shows as equal rows.
ASKED_ELSEWHERE = 2
# A share may be larger than σ/√h by what its grid adds (`privacy.shared_noise.SMOOTHING`): 0.2 %
# at the smallest deviation.
MOST_SHARE = 1.01


@dataclass(frozen=True, kw_only=True)
class SharedRelease:
    """What is summed, and by which noise.

    Attributes:
        what: For the names of the checks: what is summed.
        values: For the names of the checks: its values.
        asked: What the sites are asked for.
        sharing: How the noise is shared.
        noise: The plan's shares and their grid.
        noise_multiplier: The plan's σ of a release of this kind.
        bound: Norm of what one unit adds.
        exact: One site's sum of the values without noise, in steps of the grid, [D].
    """

    what: str
    values: str
    asked: AskedSums
    sharing: Sharing
    noise: SharedNoise
    noise_multiplier: float
    bound: float
    exact: Floats

    def checks(self, sums: Callable[..., SecureSums], rounds: int) -> list[Check]:
        """Asks all sites for the sums of every round, and tests them.

        Args:
            sums: `secure_sums` of a number of rounds, and of a kind of sites if one is given.
            rounds: Number of rounds.
        """
        summed, elsewhere = sums(rounds), sums(min(ASKED_ELSEWHERE, rounds), Site)
        rows = [self._left(row) for row in summed.rows(self.asked.values)]
        others = [self._left(row) for row in elsewhere.rows(self.asked.values)]
        drawn = shares_drawn(self.noise.share, summed.drawn, rounds)
        wrong = sum(
            not np.array_equal(row, shares) for row, shares in zip(rows, drawn, strict=False)
        )
        step, sites = self.noise.grid, self.sharing.sites
        expected = expected_charges(range(1, rounds + 1), self.asked.kind, self.noise_multiplier)
        return [
            self._share(),
            noise_check(
                f"noise of summed {self.what}",
                f"properties of the noise of all {self.values} in the unmasked sums of all sites",
                Releases(
                    np.array(rows + others) * step,
                    (self.asked.values,),
                    self.noise.share * step * math.sqrt(sites),
                ),
            ),
            exact_check(
                f"summed {self.values} and their noise",
                f"sums that are not the exact {self.values} plus the shares of noise drawn for "
                "them",
                wrong + rounds - len(drawn),
            ),
            *summed.checks(f"summed {self.what}", expected, self.sharing.bits),
        ]

    def _left(self, row: Floats) -> Floats:
        """Takes the exact sums of all sites but the first off; zeros stay where there is no sum."""
        return row - (self.sharing.sites - 1) * self.exact if row.any() else row

    def _share(self) -> Check:
        """Compares a site's share with the plan's noise by hand."""
        least = self.noise_multiplier * self.bound / math.sqrt(fewest_honest(self.sharing))
        return Check(
            name=f"share of {self.what}",
            law="a site's share over σ/√(fewest honest sites), at least 1",
            figure=self.noise.share * self.noise.grid / least,
            low=1.0,
            high=MOST_SHARE,
            is_exact=True,
        )
