"""Whether a site's ledger was rolled back: its coordinator remembers more than the ledger holds.

A folder that is restored from an older copy is sound in itself: chain, signatures and head agree.
Only somebody outside can tell. Every question names the last entry that the coordinator had from
this site (`RoundRequest.seen`); a ledger without it has forgotten a release, and would make that
round again with other noise.
"""

from __future__ import annotations

from cloister.errors import LedgerError
from cloister.ledger.ledger import Ledger


def check_seen(ledger: Ledger, seen: str) -> None:
    """Checks that a ledger holds the entry that the coordinator saw last.

    Args:
        ledger: The site's.
        seen: SHA-256 of that entry, in hex; empty where the coordinator never had one.

    Raises:
        LedgerError: It does not, or is not sound; the message says how to repair it.

    Guarantees:
        The ledger's file is read as it is now, not as it was when the site was admitted. A ledger
        that is ahead, as after a reply that was lost on its way, passes.
    """
    if seen and not ledger.holds(seen):
        raise LedgerError(
            f"the coordinator had entry {seen[:16]}… from this site, and the ledger does not hold "
            "it: an older copy was restored, and what was spent since is not in it. Nothing is "
            "charged or sent. Stop the site and restore the newest backup. Where none is as new, "
            "this ledger cannot go on: ask the coordinator which rounds it received, begin another "
            "ledger whose budget is less by what they cost, and join with it anew "
            "(docs/deployment.md)"
        )
