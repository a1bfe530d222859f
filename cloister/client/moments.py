"""Holds answers back until moments that are fixed before any record is touched.

The time of a round depends on its records: how many are drawn, and how long they are. So answers
that depend on records leave at

    begun + k · period,   k = 1, 2, …   the first of these after the work is done

where `begun` is when the work on the question began, and the period is a function of the plan and
of times measured on synthetic records. Answers that depend on question, site file and ledger alone
(a refusal, a spent budget, bytes sent again) leave at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

# The shortest period, in seconds. A round of the quickstart's tiny demos takes a tenth of it; so do
# the accountant's ε and two synced writes, which every round needs.
LEAST = 0.5
# A round may take this many times the measured time, if the machine has other work.
SLACK = 1.5


def period_of(seconds: float) -> float:
    """Returns the smallest LEAST · √2ᵏ that is above SLACK times the work's seconds.

    Only few values are possible, so that the period reveals little about the machine.

    Args:
        seconds: Measured on synthetic records, or declared.
    """
    halves = math.ceil(2 * math.log2(max(seconds * SLACK, LEAST) / LEAST))
    return LEAST * math.pow(2.0, max(0, halves) / 2)


@dataclass(frozen=True)
class Moments:
    """A clock and a wait function; tests replace them.

    Attributes:
        clock: Returns seconds of a monotonic clock.
        wait: Waits some seconds.
        waits: Whether to wait for moments; if not, everything leaves at once.
    """

    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    waits: bool = True

    def hold(self, begun: float, period: float) -> float:
        """Waits for the next moment of a period.

        Args:
            begun: When the work began, by the clock; a public moment.
            period: Seconds between moments; 0: at once.

        Returns:
            The moment, as public as `begun` is.

        Guarantees:
            All work that takes less than one period ends at the same moment. Longer work reveals
            only the number of its periods.
        """
        if not period or not self.waits:
            return begun
        moment = begun + period * max(1, math.ceil((self.clock() - begun) / period))
        while (left := moment - self.clock()) > 0:
            self.wait(left)
        return moment


# For simulations and a site's own commands, where no coordinator can measure time.
AT_ONCE = Moments(waits=False)
