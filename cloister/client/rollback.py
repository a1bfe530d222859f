"""Detects a ledger that was rolled back: the coordinator has an entry that the ledger lacks.

A folder that is restored from an older copy is consistent: chain, signatures and head agree. Only
somebody outside can see that it is old. Every question names the last entry that the coordinator
had from this site (`RoundRequest.seen`). A ledger without that entry lacks a release. The site
would release that round a second time with other noise, and the mean of two noises hides less than
the ledger states.
"""

from __future__ import annotations

from cloister.errors import LedgerError
from cloister.ledger.ledger import Ledger


def check_seen(ledger: Ledger, seen: str) -> None:
    """Checks that a ledger has the entry that the coordinator saw last.

    Args:
        ledger: The site's.
        seen: SHA-256 of that entry, in hex; empty where the coordinator never had one.

    Raises:
        LedgerError: It lacks the entry, or it is invalid; the message says how to repair it.

    Guarantees:
        The ledger's file is read again, not as it was when the site was admitted. A ledger that is
        ahead passes, as after a lost reply.
    """
    if seen and not ledger.holds(seen):
        raise LedgerError(
            f"the coordinator had entry {seen[:16]}… from this site, and the ledger does not hold "
            "it: an older copy was restored, which lacks what was spent since. Nothing is "
            "charged or sent. Stop the site and restore the newest backup. If none is new enough, "
            "this ledger cannot go on: ask the coordinator which rounds it received, make a new "
            "ledger whose budget is smaller by their cost, and join again with it "
            "(docs/deployment.md)"
        )
