"""ε spent over a ledger's charged rounds: numbers, words and colours for every plot of it.

A report draws it with matplotlib, the dashboard as SVG; both take everything from here, so that a
ledger looks the same in both. The ε is what was spent so far: an indication, at half of the
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
# A cap this many times above everything drawn is stated in words, since its line would flatten the
# curve.
FAR = 4.0
# The vertical axis ends at this many times the highest value, to leave room for a cap's label.
HEADROOM = 1.12

# Number of charged rounds, and ε.
Point = tuple[int, float]


@dataclass(frozen=True)
class SpendingSeries:
    """The spending of one ledger; every ε in it is finite.

    Attributes:
        name: The site's.
        charged: Number of charged rounds; in long ledgers ε is known for some of them only.
        pld: ε by PLD after a round.
        rdp: The same by RDP, a second and looser bound.
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
        rounds: Every charge, recomputed by `ledger.replay`.
        ahead: How much the budget still allows; None if nothing was charged.
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
        series: The plot's series.
        highest: The largest ε drawn in it.

    Returns:
        The caps that are drawn as lines, in rising order; and a text about caps far above, empty if
        there are none.
    """
    found = sorted({one.cap for one in series if math.isfinite(one.cap)})
    far = [f"{cap_words(cap)}, far above" for cap in found if cap >= FAR * highest]
    return [cap for cap in found if cap < FAR * highest], "; ".join(far)


def cap_words(cap: float) -> str:
    """Returns the label of a cap's line."""
    return f"cap {shown(cap, 2)}"


def _finite(points: Iterable[tuple[int, float | None]]) -> tuple[Point, ...]:
    return tuple((n, v) for n, v in points if v is not None and math.isfinite(v))
