"""Caches dp-accounting's distribution of one step, for each noise and rate.

dp-accounting computes it for every ε again, in a Python loop that takes most of the time. Composing
the distribution and reading ε from it is still dp-accounting's own code.
"""

from functools import cache

import pytest
from dp_accounting.pld import privacy_loss_distribution


def made_once(patch: pytest.MonkeyPatch) -> None:
    """Patches dp-accounting so that it keeps the distributions of Gaussian steps."""
    make = cache(privacy_loss_distribution.from_gaussian_mechanism)
    patch.setattr(privacy_loss_distribution, "from_gaussian_mechanism", make)
