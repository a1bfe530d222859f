"""When an answer leaves: at moments that are fixed before any record is touched.

How long a round trains depends on the records: on how many are drawn, and how long they are. So
what follows from records leaves at

    begun + k · period,   k = 1, 2, …   the first of them at which it is done

where `begun` is when the question was taken up and the period is a function of the plan and of
times measured on synthetic records. What follows from question, site file and ledger alone (a
refusal, a spent budget, bytes sent again) leaves at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

# The shortest period, in seconds. A round of the quickstart's tiny demos takes a tenth of it; the
# accountant's ε of a ledger and two synced writes, which every round needs, about as much.
LEAST = 0.5
# A measured time is not the longest one: a machine with other work is that much slower.
SLACK = 1.5


def period_of(seconds: float) -> float:
    """Returns the smallest LEAST · √2ᵏ that is above SLACK times the work's seconds.

    Few values are possible, so that the period itself says little about the machine.

    Args:
        seconds: Measured on synthetic records, or declared.
    """
    halves = math.ceil(2 * math.log2(max(seconds * SLACK, LEAST) / LEAST))
    return LEAST * math.pow(2.0, max(0, halves) / 2)


@dataclass(frozen=True)
class Moments:
    """A clock and a way to wait, which tests replace.

    Attributes:
        clock: Seconds that only grow.
        wait: Waits some seconds.
        waits: Whether moments are kept at all; if not, everything leaves at once.
    """

    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    waits: bool = True

    def hold(self, begun: float, period: float) -> float:
        """Waits for the next moment of a period.

        Args:
            begun: When the work began, by the clock; a moment that is public.
            period: Seconds between moments; 0: at once.

        Returns:
            The moment, as public as `begun` is.

        Guarantees:
            Work that took less than one period ends at one moment, whatever it did. What took
            longer tells in how many periods it was done, and nothing finer.
        """
        if not period or not self.waits:
            return begun
        moment = begun + period * max(1, math.ceil((self.clock() - begun) / period))
        while (left := moment - self.clock()) > 0:
            self.wait(left)
        return moment


# For simulations and a site's own commands, where no coordinator can measure time.
AT_ONCE = Moments(waits=False)
