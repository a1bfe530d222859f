"""Number of examples of a property test: an eighth in `make test`, all in `make nightly`."""

import os

from hypothesis import HealthCheck, settings

ALL = os.environ.get("HYPOTHESIS_PROFILE") in ("nightly", "fuzz")
# Fewer than this find too little in one run.
FEWEST = 10


def tries(count: int) -> int:
    """Returns how many of a property's `count` examples this run tries."""
    return count if ALL else max(FEWEST, count // 8)


# Where a test names no count: hypothesis' own, 100. No example has a deadline, and none is too slow
# to draw: beside busy processes any of them may take a second.
settings.register_profile(
    "tries",
    max_examples=tries(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
