"""Noise that the coordinator adds to the sum of the sites' updates, to hide a whole site.

    x ← x + strategy((Σ_k Δ_k + N(0, (z S)²)) / K)

The unit is a whole site with all its records: each update has norm at most S, and the divisor is
the declared number of sites, however many answered (McMahan et al. 2018, arXiv:1710.06963, without
sampling of sites: no amplification, as the coordinator knows who takes part). It protects against
anybody who sees only the adapters; the coordinator itself sees each site's update, with that site's
noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cloister.adapter.tensors import Adapter
from cloister.privacy.central import CentralPlan
from cloister.privacy.clipping import ClippedSum, clip_and_sum
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import add_noise


@dataclass
class CentralSum:
    """A round's updates, clipped and summed as they arrive; none is kept.

    Attributes:
        plan: The constants of the noise.
    """

    plan: CentralPlan
    _names: tuple[str, ...] = ()
    _total: ClippedSum | None = None

    def add(self, site: str, update: Adapter) -> None:
        """Takes a site's update; each site once."""
        rows = [torch.from_numpy(array.copy())[None] for array in update.values()]
        clipped = clip_and_sum(rows, self.plan.max_update_norm)
        self._names = tuple(update)
        self._total = clipped if self._total is None else self._total + clipped

    def mean(self, entropy: Entropy) -> Adapter:
        """The noised sum over the declared number of sites.

        Raises:
            ValueError: No update came.

        Guarantees:
            One release of the plan's event per whole site added or removed; the noise is drawn on
            an integer grid, as at the sites.
        """
        if self._total is None:
            raise ValueError("no update came")
        noised = add_noise(self._total, self.plan.noise_multiplier, entropy).tensors
        means = {
            name: (tensor / self.plan.sites).numpy()
            for name, tensor in zip(self._names, noised, strict=True)
        }
        return Adapter(means)
