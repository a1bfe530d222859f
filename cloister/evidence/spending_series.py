"""ε spent over the rounds that a ledger charged: numbers, words and colours of every picture of it.

A report draws it with matplotlib, the dashboard as SVG; both take everything from here, so that the
same ledger looks the same in both. It is what was spent so far: an indication, at half of the
budget's δ, at which the budget's rule compares it with the cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloister.ledger.replay import ChargedRound, Forecast
from cloister.ledger.stated import shown

# Colours of lines in turn, of a cap and of the second accountant; the dashboard's style sheet has
# the same ones for a light page.
COLOURS = ("#0a5c99", "#9a5200", "#6b4aa5", "#0b7355")
CAP, SECOND = "#b3261e", "#5a616b"
# A cap so many times above all that is drawn is written and not drawn: it would flatten the curve.
FAR = 4.0
# The upright axis ends so far above the highest that is drawn, which leaves room for a cap's label.
HEADROOM = 1.12

# Rounds charged in all, and ε.
Point = tuple[int, float]


@dataclass(frozen=True)
class SpendingSeries:
    """What one ledger spent; every ε in it is finite.

    Attributes:
        name: The site's.
        charged: How many rounds it charged; of long ledgers, ε is known for some of them.
        pld: ε by PLD after a round.
        rdp: The same by RDP, a second and looser opinion.
        ahead: ε by PLD if the budget's rest were used by rounds of the plan charged last.
        cap: ε that the budget allows; ∞ where it has no limit.
    """

    name: str
    charged: int
    pld: tuple[Point, ...]
    rdp: tuple[Point, ...]
    ahead: tuple[Point, ...]
    cap: float

    @property
    def last(self) -> int:
        """Returns the last round that is drawn."""
        return max([self.charged, *(number for number, _ in self.ahead)])

    def highest(self, *, rdp: bool = False) -> float:
        """Returns the largest ε that is drawn, without the cap.

        Args:
            rdp: Whether the second accountant's is drawn.
        """
        points = [*self.pld, *self.ahead, *(self.rdp if rdp else ())]
        return max((value for _, value in points), default=0.0)


def series_of(
    name: str, rounds: Sequence[ChargedRound], ahead: Forecast | None, cap: float
) -> SpendingSeries:
    """Makes the series of a checked ledger.

    Args:
        name: The site's.
        rounds: Every charge, as `ledger.replay` recomputes it.
        ahead: What the budget still affords; None where nothing was charged.
        cap: ε of the budget.
    """
    coming = ahead.curve if ahead is not None and ahead.rounds else ()
    return SpendingSeries(
        name=name,
        charged=len(rounds),
        pld=_finite((n, one.epsilon_pld) for n, one in enumerate(rounds, 1)),
        rdp=_finite((n, one.epsilon_rdp) for n, one in enumerate(rounds, 1)),
        ahead=_finite((len(rounds) + more, value) for more, value in coming),
        cap=cap,
    )


def caps(series: Iterable[SpendingSeries], highest: float) -> tuple[list[float], str]:
    """Returns the caps of one picture.

    Args:
        series: Of the picture.
        highest: The largest ε drawn in it.

    Returns:
        Those that are drawn as lines, in rising order; and words on those that lie far above, empty
        where none does.
    """
    found = sorted({one.cap for one in series if math.isfinite(one.cap)})
    far = [f"{cap_words(cap)}, far above" for cap in found if cap >= FAR * highest]
    return [cap for cap in found if cap < FAR * highest], "; ".join(far)


def cap_words(cap: float) -> str:
    """Returns the label of a cap's line."""
    return f"cap {shown(cap, 2)}"


def _finite(points: Iterable[tuple[int, float | None]]) -> tuple[Point, ...]:
    return tuple((n, v) for n, v in points if v is not None and math.isfinite(v))
