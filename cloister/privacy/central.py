"""The noise that the coordinator adds to the mean, and the ε of a whole site.

The client-level mechanism of McMahan et al. 2018, arXiv:1710.06963, without sampling of sites.
Everything is computed from public constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.privacy.accounting import calibrate, epsilon
from cloister.privacy.events import GaussianEvent

# With fewer sites the noise is much larger than the mean: at ε = 8 it is 73 times as long as any
# update with 20 sites, and 1.5 times with 1,000 (295,000 parameters, 20 rounds).
SENSIBLE_SITES = 100


@dataclass(frozen=True, kw_only=True)
class CentralPlan:
    """Public constants of the noise that the coordinator adds.

    Attributes:
        sites: K, the declared number of sites: the divisor, however many answer.
        rounds: Rounds of the study; every site counts as taking part in each.
        max_update_norm: S, the bound on one site's update: the sensitivity.
        noise_multiplier: z, noise deviation over S.
        delta: δ of the guarantee.
    """

    sites: int
    rounds: int
    max_update_norm: float
    noise_multiplier: float
    delta: float

    def epsilon_after(self, rounds: int) -> float:
        """Computes ε by PLD for adding or removing one whole site, after this number of rounds.

        It holds against anybody who sees only the adapters, not against the coordinator.
        """
        event = GaussianEvent(
            noise_multiplier=self.noise_multiplier, sample_rate=1.0, steps=rounds, is_private=True
        )
        return epsilon([event], self.delta)


def central_plan(
    target: float, delta: float, *, sites: int, rounds: int, max_update_norm: float
) -> CentralPlan:
    """Solves for the noise multiplier that reaches a target ε of a whole site.

    Args:
        target: The largest ε allowed, over all rounds.
        delta: δ of the guarantee.
        sites: K, the declared number of sites.
        rounds: Rounds of the study.
        max_update_norm: S, the L2 bound on one site's update.

    Raises:
        RefusedError: No amount of noise meets the target.
    """
    return CentralPlan(
        sites=sites,
        rounds=rounds,
        max_update_norm=max_update_norm,
        noise_multiplier=calibrate(1.0, rounds, target, delta),
        delta=delta,
    )
