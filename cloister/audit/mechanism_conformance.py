"""Conformance of the mechanism itself: its noise, its sampler, and their independence.

Every batch and every release of a study go through `Mechanism`, also with shared noise. It is
tested with the plan's own noise, bound, rate and number of steps, with the shapes of the study's
parameters, and at sites of one unit, of few, of the declared number, and of more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloister.audit.noise_tests import Releases, noise_check, noise_checks
from cloister.audit.sampler_tests import (
    distance_p,
    inclusion,
    independence_p,
    sampler_checks,
    sampler_p,
    total_p,
)
from cloister.audit.statistics import Check, Floats, exact_check, p_check
from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.entropy import Entropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan

MakeEntropy = Callable[[], Entropy]

# Number of noise values that are tested, and bounds on the number of their releases. At 600,000
# the scale is known to 0.5 % (χ² at 2·10⁻⁷), so noise at 0.97 of the right size is refuted almost
# surely from 100,000 values on; 16 releases show that a tensor of two values has no noise.
VALUES = 600_000
FEWEST, MOST = 16, 256
# Number of releases among which equal ones are searched, and their values. If 2^k releases are
# possible, two of 20,000 are equal with probability 1 − exp(−2·10⁸ / 2^k): almost surely for 16
# bits of seed, at 99.999 % for 24.
DRAWS, SMALL = 20_000, 8
# Units of a small site, and how many times the expected wait for a unit is drawn from it, so that a
# unit that is never drawn is noticed.
FEW_UNITS, WAITS = 40, 60
FEWEST_BATCHES, MOST_BATCHES = 2000, 20_000
# Number of coins at sites of the declared size, and the largest such size that is tested.
COINS, MOST_UNITS = 600_000, 50_000
# Batches of sites that hold ten and a hundred times what they declare, and of one beyond 2²⁰ units,
# to find faults that begin at some size; two batches show coins that repeat among a few.
FAR_BATCHES, FAR_UNITS = 2, 2**20 + 7


@dataclass(frozen=True)
class NoiseTerms:
    """The promised noise of one release of a plan.

    Attributes:
        plan: A private plan; its noise may be shared.
        values: Number of values of a release.
    """

    plan: Plan
    values: int

    @property
    def grid(self) -> float | None:
        """Grid of the sums; None: the bound's default."""
        if self.plan.sharing is None:
            return None
        return self.plan.shared_noise(self.values).grid

    @property
    def deviation(self) -> float:
        """Standard deviation of each value's noise; with shared noise, of one site's share."""
        if self.plan.sharing is None:
            return self.plan.noise_multiplier * (self.plan.max_grad_norm or 0.0)
        noise = self.plan.shared_noise(self.values)
        return noise.share * noise.grid

    def release(self, mechanism: Mechanism, clipped: ClippedSum) -> Floats:
        """The released values, or with shared noise the values before the mask, [values]."""
        if self.plan.sharing is None:
            tensors = mechanism.release(clipped).tensors
            joined: Floats = torch.cat([t.flatten() for t in tensors]).double().cpu().numpy()
            return joined
        return mechanism.release_share(clipped).astype(np.float64) * clipped.grid


def mechanism_noise(
    parameters: Sequence[Tensor], plan: Plan, make_entropy: MakeEntropy
) -> list[Check]:
    """Checks the noise of a plan's mechanism.

    Args:
        parameters: The trained parameters.
        plan: A private plan.
        make_entropy: Makes the source of randomness.
    """
    return [
        *_noise(parameters, plan, make_entropy),
        _beside_sums(parameters, plan, make_entropy),
        _seeds(plan, make_entropy),
    ]


def releases_wanted(values: int) -> int:
    """How many releases of this number of values are tested."""
    return int(np.clip(VALUES // values, FEWEST, MOST))


def _mechanisms(plan: Plan, steps: int, make_entropy: MakeEntropy) -> list[Mechanism]:
    """A mechanism for each of `steps` steps: half of them in one long round, half in rounds of the
    plan."""
    long = Mechanism(replace(plan, local_steps=steps), make_entropy())
    made = [long] * (steps // 2)
    while len(made) < steps:
        made += [Mechanism(plan, make_entropy())] * plan.local_steps
    return made[:steps]


def _noise(parameters: Sequence[Tensor], plan: Plan, make_entropy: MakeEntropy) -> list[Check]:
    parts = tuple(parameter.numel() for parameter in parameters)
    terms, steps = NoiseTerms(plan, sum(parts)), releases_wanted(sum(parts))
    nothing = empty_sum(parameters, plan.max_grad_norm or 0.0, terms.grid)
    rows, batches = [], []
    for mechanism in _mechanisms(plan, steps, make_entropy):
        batches.append(mechanism.draw(FEW_UNITS))
        rows.append(terms.release(mechanism, nothing))
    values = np.array(rows)
    shared = plan.sharing is not None
    releases = Releases(values, parts, terms.deviation, nothing.grid, not shared)
    off_grid = float(np.abs(values / nothing.grid - np.rint(values / nothing.grid)).max())
    drawn, _ = inclusion(batches, FEW_UNITS)
    return [
        *noise_checks(releases),
        exact_check("grid", "distance of releases from the integer grid", off_grid),
        p_check(
            "noise beside batches",
            "independence of units' coins, and of batch sizes, from the noise released with them",
            independence_p(drawn, releases.standard),
        ),
    ]


def _beside_sums(parameters: Sequence[Tensor], plan: Plan, make_entropy: MakeEntropy) -> Check:
    """Checks the noise beside sums of one unit with a sparse gradient, of one unit, and of many."""
    parts = tuple(parameter.numel() for parameter in parameters)
    terms = NoiseTerms(plan, sum(parts))
    bound = plan.max_grad_norm or 0.0
    generator = torch.Generator().manual_seed(0)

    def unit(sparse: bool) -> list[Tensor]:
        rows = [torch.randn((1, *p.shape), generator=generator) for p in parameters]
        if sparse:  # only the first tensor has a gradient
            rows = [rows[0], *(torch.zeros_like(row) for row in rows[1:])]
        return rows

    one = clip_and_sum(unit(sparse=True), bound, terms.grid)
    other = clip_and_sum(unit(sparse=False), bound, terms.grid)
    batch = plan.expected_batch_size
    many = ClippedSum(tuple(t * batch for t in other.tensors), one.bound, one.coarse)
    steps = max(FEWEST, releases_wanted(sum(parts)) // 2)
    rows = []
    for number, mechanism in enumerate(_mechanisms(plan, steps, make_entropy)):
        clipped = (one, other, many)[number % 3]
        mechanism.draw(plan.public_records)
        known = torch.cat([t.flatten() for t in clipped.tensors]).double().numpy() * clipped.grid
        rows.append(terms.release(mechanism, _on(clipped, parameters)) - known)
    return noise_check(
        "noise beside sums",
        "the same properties of the noise in releases of one unit and of many units",
        Releases(np.array(rows), parts, terms.deviation),
    )


def _on(clipped: ClippedSum, parameters: Sequence[Tensor]) -> ClippedSum:
    moved = tuple(t.to(p.device) for t, p in zip(clipped.tensors, parameters, strict=True))
    return ClippedSum(moved, clipped.bound, clipped.coarse)


def _seeds(plan: Plan, make_entropy: MakeEntropy) -> Check:
    """Counts equal releases among many short rounds; a generator with few seeds repeats itself."""
    terms = NoiseTerms(plan, SMALL)
    nothing = empty_sum([torch.zeros(SMALL)], plan.max_grad_norm or 0.0, terms.grid)
    seen = set()
    for _ in range(DRAWS):
        mechanism = Mechanism(plan, make_entropy())
        mechanism.draw(0)
        seen.add(terms.release(mechanism, nothing).tobytes())
    return exact_check(
        "noise seeds",
        f"releases that repeat among {DRAWS} of independent rounds",
        DRAWS - len(seen),
    )


def _draws(
    plan: Plan, units: int, batches: int, make_entropy: MakeEntropy
) -> list[NDArray[np.int64]]:
    return [mechanism.draw(units) for mechanism in _mechanisms(plan, batches, make_entropy)]


def mechanism_sampler(plan: Plan, make_entropy: MakeEntropy) -> list[Check]:
    """Checks the sampler of a plan's mechanism, and how often a round may draw.

    Args:
        plan: A private plan.
        make_entropy: Makes the source of randomness.
    """
    rate = plan.sample_rate
    waits = int(np.clip(WAITS / rate, FEWEST_BATCHES, MOST_BATCHES))
    declared = min(plan.public_records, MOST_UNITS)
    sizes = {1: waits, 2: waits, declared: 0, 3 * declared + 7: 0}
    found, malformed = [], 0
    for units, batches in sizes.items():
        wanted = batches or int(np.clip(COINS // units, 64, 512))
        drawn, invalid = inclusion(_draws(plan, units, wanted, make_entropy), units)
        malformed += invalid
        found += sampler_p(drawn, rate) if rate < 1 else [float(drawn.all())]
    found += far_p(plan, make_entropy)
    few = _draws(plan, FEW_UNITS, waits, make_entropy)
    return [
        *sampler_checks(few, FEW_UNITS, rate),
        p_check(
            "sampling at real sizes",
            f"the same properties at sites of 1, 2, {declared} and {3 * declared + 7} units; at "
            f"ten and a hundred times the declared number and at {FAR_UNITS}: batch sizes, and "
            "coins of units that are a power of two apart",
            [*found, float(malformed == 0)],
        ),
        exact_check("steps", "steps drawn beyond the plan's", _further(plan, make_entropy)),
    ]


def far_p(plan: Plan, make_entropy: MakeEntropy) -> list[float]:
    """p-values at sites far larger than declared, where the rate and independence must hold too."""
    rate, found = plan.sample_rate, list[float]()
    for units in (10 * plan.public_records, 100 * plan.public_records, FAR_UNITS):
        units = min(units, FAR_UNITS)
        batches = _draws(plan, units, FAR_BATCHES, make_entropy)
        sizes = np.array([len(batch) for batch in batches])
        if rate == 1:
            found.append(float((sizes == units).all()))
            continue
        found += [*total_p(sizes, units, rate), *distance_p(batches, units, rate)]
    return found


def _further(plan: Plan, make_entropy: MakeEntropy) -> int:
    """Counts how many of three draws beyond the plan's steps succeed; 0 is right."""
    further = 0
    for units in (0, 1, FEW_UNITS):
        mechanism = Mechanism(plan, make_entropy())
        for _ in range(plan.local_steps):
            mechanism.draw(units)
        try:
            mechanism.draw(units)
            further += 1
        except RefusedError:
            continue
    return further
