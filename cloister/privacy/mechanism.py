"""Binds sampler, clip bound, noise and number of steps, so that exactly the accounted event runs.

    draw      a Poisson batch at the plan's rate
    release   the batch's clipped sum with the plan's noise; or with this site's share of it

in turns, at most as often as a round of the plan has steps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum, within
from cloister.privacy.correlated_noise import BandedStep, add_correlated_noise
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.sampling import poisson_sample


class Mechanism:
    """One round of a plan's subsampled Gaussian mechanism.

    Args:
        plan: The plan with all constants.
        entropy: The source of sampling and noise.
        banded: With correlated noise, the step; else None.

    Raises:
        RefusedError: The plan's noise is correlated and no step is given, or the other way round.

    Guarantees:
        At most `plan.local_steps` batches are drawn; each is released at most once, and only as a
        sum clipped to the plan's bound, with the plan's noise. So a round's releases are at most
        the plan's event.
    """

    def __init__(self, plan: Plan, entropy: Entropy, banded: BandedStep | None = None) -> None:
        if bool(plan.bands) != (banded is not None):
            raise RefusedError("a plan with correlated noise, and no other, runs step by step")
        self.plan = plan
        self._banded = banded
        self._entropy = entropy
        self._drawn = 0
        self._released = 0

    def draw(self, count: int) -> NDArray[np.int64]:
        """Draws the next step's batch.

        Args:
            count: Number of units; private.

        Raises:
            RefusedError: The plan has no further step in a round; or the units are not those whose
                groups are known.
        """
        # One more batch would be an event that the accountant did not count.
        if self._drawn == self.plan.local_steps:
            raise RefusedError(
                f"step {self._drawn + 1} of a round was asked; the plan has {self.plan.local_steps}"
            )
        self._drawn += 1
        drawn = poisson_sample(count, self.plan.sample_rate, self._entropy)
        if self._banded is None:
            return drawn
        if len(self._banded.marks) != count:
            raise RefusedError(f"{count} units with {len(self._banded.marks)} groups were given")
        # Only the step's group: another group's unit would be in two of b successive steps.
        return drawn[self._banded.members(self.plan.groups)[drawn]]

    def release(self, clipped: ClippedSum) -> NoisedSum:
        """Adds the plan's noise to the batch drawn last.

        Raises:
            RefusedError: The sum's bound is not the plan's, or the batch was released already.
        """
        # The noise's scale is a multiple of the plan's bound. A sum with a larger bound would get
        # too little noise, and ε would be false.
        if clipped.bound != self.plan.max_grad_norm:
            raise RefusedError(
                f"a sum clipped to {clipped.bound} was given; the plan says "
                f"{self.plan.max_grad_norm}"
            )
        if self.plan.sharing is not None:
            raise RefusedError(
                "the plan's noise is shared, so a sum leaves only as a share under a mask; use "
                "release_share"
            )
        self._release_once()
        noise = self.plan.noise_multiplier
        if self._banded is not None:
            return add_correlated_noise(
                clipped, self.plan.bands, noise, self._banded, self._entropy
            )
        return add_noise(clipped, noise, self._entropy)

    def release_share(self, clipped: ClippedSum) -> NDArray[np.int64]:
        """Adds this site's share of the plan's noise to the batch drawn last.

        Coordinates beyond the site's part of the grid are cut first, so that a sum never wraps.

        Returns:
            Integers in steps of the shared grid [values], the sum's tensors one after another.
            Alone they have too little noise, so they leave a site only under a mask.

        Raises:
            RefusedError: The noise is not shared, or bound or grid are not the plan's; or the
                batch was released already.
        """
        values = sum(tensor.numel() for tensor in clipped.tensors)
        noise = self.plan.shared_noise(values)
        if (clipped.bound, clipped.grid) != (noise.bound, noise.grid):
            raise RefusedError(
                f"a sum clipped to {clipped.bound} on a grid of {clipped.grid} was given; the plan "
                f"says {noise.bound} and {noise.grid}"
            )
        self._release_once()
        # Cut before the noise is added, so that the sum over sites does not wrap modulo 2^bits.
        # Cutting after it would change the law of the summed noise, which is what is accounted.
        fitting = within(clipped, noise.room)
        flat = torch.cat([tensor.flatten() for tensor in fitting.tensors]).cpu().numpy()
        return flat + discrete_gaussian(noise.share, values, self._entropy)

    def _release_once(self) -> None:
        # Two noisy sums of one batch could be averaged, which halves the variance of the noise.
        if self._released == self._drawn:
            raise RefusedError("a batch is released once; draw the next one first")
        self._released += 1
