"""Checks that votes and private evaluations with shared noise have in common.

What is accounted is the noise of the fewest honest sites in a sum, on every value. That holds if
each site's share has the plan's size on the plan's grid, and if every sum has the shares of all
sites and nothing else.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cloister.audit.asked import UnitSum
from cloister.audit.asked_site import expected_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.recorded_noise import shares_drawn
from cloister.audit.secure_sums import fewest_honest, secure_sums
from cloister.audit.statistics import Check, exact_check
from cloister.audit.unit_influence import values_of
from cloister.client.site import Site
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.sharing import Sharing
from cloister.recipe import Recipe

# Rounds of the study: with a few dozen values enough to notice one without noise.
ASKED = 24
# Rounds that are asked once more under other ledgers, with the same seed, study and names: noise
# that follows from these shows as equal rows.
ASKED_ELSEWHERE = 2
# A share may be larger than σ/√h by what its grid adds (`privacy.shared_noise.SMOOTHING`): 0.2 %
# at the smallest deviation.
MOST_SHARE = 1.01


def shared_checks(
    recipe: Recipe, audited: AuditedSite, plan: Plan, released: UnitSum, noise: SharedNoise
) -> list[Check]:
    """Asks all sites for the sums of every round, and tests them.

    Args:
        recipe: The study.
        audited: A site with synthetic records.
        plan: The study's plan, whose noise is shared.
        released: What is summed.
        noise: The plan's shares of it, and their grid.
    """
    assert plan.sharing is not None
    # Of all sites but the first, which has no units.
    known = (plan.sharing.sites - 1) * values_of(released.exact(audited.units, noise.grid))
    sums = partial(secure_sums, recipe, audited, released.planned(plan, ASKED), released.asked)
    summed, elsewhere = sums(ASKED), sums(min(ASKED_ELSEWHERE, ASKED), Site)
    values = released.asked.values
    # Zeros stay where there is no sum.
    rows, others = (
        [row - known if row.any() else row for row in found.rows(values)]
        for found in (summed, elsewhere)
    )
    drawn = shares_drawn(noise.share, summed.drawn, ASKED)
    wrong = sum(not np.array_equal(row, shares) for row, shares in zip(rows, drawn, strict=False))
    expected = expected_charges(range(1, ASKED + 1), released.asked.kind, released.noise_multiplier)
    return [
        _share(released, plan.sharing, noise),
        noise_check(
            f"noise of summed {released.what}",
            f"properties of the noise of all {released.values} in the unmasked sums of all sites",
            Releases(
                np.array(rows + others) * noise.grid,
                (values,),
                noise.share * noise.grid * math.sqrt(plan.sharing.sites),
            ),
        ),
        exact_check(
            f"summed {released.values} and their noise",
            f"sums that are not the exact {released.values} plus the shares of noise drawn for "
            "them",
            wrong + ASKED - len(drawn),
        ),
        *summed.checks(f"summed {released.what}", expected, plan.sharing.bits),
    ]


def _share(released: UnitSum, sharing: Sharing, noise: SharedNoise) -> Check:
    """Compares a site's share with the plan's noise by hand."""
    least = released.noise_multiplier * released.bound / math.sqrt(fewest_honest(sharing))
    return Check(
        name=f"share of {released.what}",
        law="a site's share over σ/√(fewest honest sites), at least 1",
        figure=noise.share * noise.grid / least,
        low=1.0,
        high=MOST_SHARE,
        is_exact=True,
    )
