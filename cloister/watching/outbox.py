"""Alerts that wait for their delivery, one entry for each address: a pure value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloister.watching.alert import Alert

# Seconds before a second try, and the longest pause: each pause is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
# Most entries of an outbox: alerts are debounced, so 10,000 are months of an address that fails.
MOST_WAITING = 10_000


@dataclass(frozen=True)
class Waiting:
    """An alert for one address.

    Attributes:
        alert: The alert.
        address: Where it goes.
        tries: So far.
        due: When it is tried next, in seconds since 1970.
        why: Why the last try failed; empty: there was none.
    """

    alert: Alert
    address: str
    tries: int = 0
    due: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Outbox:
    """What waits.

    Attributes:
        waiting: By alert's id and address.
        delivered: Alerts that arrived, by address.
        dropped: Alerts that were given up, as more than `MOST_WAITING` waited.
    """

    waiting: Mapping[tuple[str, str], Waiting]
    delivered: Mapping[str, int]
    dropped: int = 0


def with_alerts(outbox: Outbox, alerts: Sequence[Alert], addresses: Sequence[str]) -> Outbox:
    """Adds an entry for each alert and address; the oldest ones go where there are too many."""
    new = {(one.id, to): Waiting(one, to) for one in alerts for to in addresses}
    waiting = {**outbox.waiting, **new}
    over = max(0, len(waiting) - MOST_WAITING)
    kept = dict(list(waiting.items())[over:])
    return replace(outbox, waiting=kept, dropped=outbox.dropped + over)


def with_result(outbox: Outbox, entry: Waiting, why: str | None, now: float) -> Outbox:
    """After a try: the entry is gone, or waits twice as long as before.

    Args:
        outbox: Before.
        entry: What was tried.
        why: Why it failed; None: it arrived.
        now: In seconds since 1970.
    """
    key = (entry.alert.id, entry.address)
    if key not in outbox.waiting:
        return outbox
    waiting = dict(outbox.waiting)
    if why is None:
        del waiting[key]
        count = outbox.delivered.get(entry.address, 0) + 1
        return replace(
            outbox, waiting=waiting, delivered={**outbox.delivered, entry.address: count}
        )
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(entry.tries, 30))
    waiting[key] = replace(entry, tries=entry.tries + 1, due=now + pause, why=why)
    return replace(outbox, waiting=waiting)


def next_due(outbox: Outbox, address: str, now: float) -> Waiting | None:
    """The oldest entry of an address that is due: one that fails keeps no other from its turn."""
    for entry in outbox.waiting.values():
        if entry.address == address and entry.due <= now:
            return entry
    return None
