"""Holds alerts that wait for delivery, one entry for each address, as an immutable value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloister.watching.alert import Alert

# Seconds before the second try, and the longest pause; each pause is twice the previous one.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
# Most entries: alerts are rare (`debounce`), so 10,000 entries are months of failing deliveries.
MOST_WAITING = 10_000


@dataclass(frozen=True)
class Waiting:
    """An alert that waits for delivery to one address.

    Attributes:
        alert: The alert.
        address: The address.
        tries: Number of tries so far.
        due: The time of the next try, in seconds since 1970.
        why: The reason why the last try failed; empty: there was no try.
    """

    alert: Alert
    address: str
    tries: int = 0
    due: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Outbox:
    """All waiting alerts, and counts of delivered and dropped ones.

    Attributes:
        waiting: The entries by the alert's id and address.
        delivered: Number of delivered alerts, by address.
        dropped: Number of alerts that were dropped because more than `MOST_WAITING` waited.
    """

    waiting: Mapping[tuple[str, str], Waiting]
    delivered: Mapping[str, int]
    dropped: int = 0


def with_alerts(outbox: Outbox, alerts: Sequence[Alert], addresses: Sequence[str]) -> Outbox:
    """Adds an entry for each alert and address; drops the oldest entries if there are too many."""
    new = {(one.id, to): Waiting(one, to) for one in alerts for to in addresses}
    waiting = {**outbox.waiting, **new}
    over = max(0, len(waiting) - MOST_WAITING)
    kept = dict(list(waiting.items())[over:])
    return replace(outbox, waiting=kept, dropped=outbox.dropped + over)


def with_result(outbox: Outbox, entry: Waiting, why: str | None, now: float) -> Outbox:
    """Removes an entry after a delivery, or doubles its pause after a failure.

    Args:
        outbox: The outbox before.
        entry: The entry that was tried.
        why: The reason of the failure; None: the alert was delivered.
        now: The time in seconds since 1970.
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
    """Returns the oldest due entry of an address; a failing entry does not block the others."""
    for entry in outbox.waiting.values():
        if entry.address == address and entry.due <= now:
            return entry
    return None
