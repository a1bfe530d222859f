"""Answers that a site must not give: each would be a release that no charge pays for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cloister.audit.asked import Asked
from cloister.client.admission import Admitted
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.errors import RefusedError, RoundSpentError
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.gaussian_table import Integers
from cloister.privacy.plan import Plan
from cloister.protocol.exchange import RoundReply


class _NoNoise(OsEntropy):
    """A source that fails when noise is drawn, which is after the charge."""

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws nothing."""
        raise OSError("no noise")


class CutOff(Site):
    """A site that is cut off between a round's charge and its release."""

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Returns the source that fails."""
        return _NoNoise()


def second_answers(
    asked: Asked,
    released: Callable[[], Admitted],
    first: RoundReply,
    fresh: Callable[[type[Site]], Admitted],
    last: int,
) -> int:
    """Counts answers to another question in a released round, to a round beyond the plan's list,
    and to a round that was cut off; another release of a round after which others were released;
    and changes of the ledger that come with them.

    Args:
        asked: What the site is asked for.
        released: Opens a site that has released round 1, and later ones if the plan lists some.
        first: Its answer in round 1.
        fresh: Opens another one, of a kind, under a ledger without charges at first.
        last: The last listed round.
    """
    head, given = released().site.ledger.head, 0
    again = run_round(released(), asked.request(1), lambda: None)
    given += (again.delta, again.head) != (first.delta, first.head)  # ε is of all rounds by now
    for request in (asked.request(1, other=True), asked.request(last + 1)):
        with suppress(RefusedError):
            run_round(released(), request, lambda: None)
            given += 1
    given += released().site.ledger.head != head
    charged = []
    for kind in (CutOff, Site):
        with suppress(RoundSpentError):
            run_round(fresh(kind), asked.request(1), lambda: None)
            given += 1
        charged.append(fresh(Site).site.ledger.head.seq)
    # The round is charged when it is cut off, and not again.
    return given + (charged != [1, 1])
