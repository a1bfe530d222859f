"""dp-accounting's accountant, which makes a step's distribution once for each noise and rate.

It makes it anew for every ε, in a loop of Python's that takes most of the time; what it composes
and reads from it stays its own.
"""

from functools import cache

import pytest
from dp_accounting.pld import privacy_loss_distribution


def made_once(patch: pytest.MonkeyPatch) -> None:
    """Has dp-accounting keep the distributions of Gaussian steps."""
    make = cache(privacy_loss_distribution.from_gaussian_mechanism)
    patch.setattr(privacy_loss_distribution, "from_gaussian_mechanism", make)
