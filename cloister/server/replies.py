"""The replies of one round: which count, and what the others mean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message

from cloister.adapter.exchange import RECORD, RoundReply, Status
from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest
from cloister.errors import AdapterFormatError

log = logging.getLogger(__name__)

# Relative error of a norm whose values were rounded to float32 on the wire (2⁻²⁴ each), with room
# for the sum's own rounding.
ROUNDING = 1e-6


@dataclass
class Replies:
    """What came back in a round.

    Attributes:
        updates: By site, of those whose reply is what it must be.
        epsilon: ε spent, by site, as the sites state it.
        received: SHA-256 of what came, and of the ledger's entry for it, by site.
        bytes: Of all updates.
        retired: Sites whose budget is spent: they take part no more.
        spent: Sites that charged this round before and were cut off: they go on with the next.
        refused: Why a site's reply does not count, in words, by site; "a site" where it did not
            say which.
    """

    updates: dict[str, Adapter] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    received: dict[str, tuple[str, str]] = field(default_factory=dict)
    bytes: int = 0
    retired: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, site: str, number: int, why: str) -> None:
        """Notes and logs a reply that does not count."""
        self.refused[site or "a site"] = why
        log.warning("round %d: %s: %s", number, site or "a site", why)


def read_replies(
    messages: Iterable[Message],
    sites: tuple[str, ...],
    number: int,
    shapes: Callable[[str], Shapes],
    max_update_norm: float | None,
) -> Replies:
    """Sorts a round's replies; what is not as it must be is logged and left out.

    Args:
        messages: As they arrived.
        sites: Names of all sites.
        number: The round.
        shapes: Names and shapes of a site's update.
        max_update_norm: Bound that every site agreed to; None: no bound.
    """
    replies = Replies()
    for message in messages:
        if not message.has_content():
            replies.refuse("", number, f"no content, Flower's error {message.error.code}")
            continue
        site = ""
        try:
            reply = RoundReply.from_fields(dict(message.content[RECORD]))
            if reply.site in sites and reply.status in (Status.BUDGET, Status.SPENT):
                group = replies.retired if reply.status is Status.BUDGET else replies.spent
                group.add(reply.site)
                continue
            site = reply.site if reply.site in sites else ""
            if reply.status is not Status.TRAINED:
                replies.refuse(site, number, f"it says: {reply.status.value}")
                continue
            if reply.round != number:
                raise AdapterFormatError(f"an answer to round {reply.round}")
            if reply.site not in sites:
                raise AdapterFormatError("a site that is not of this study")
            if reply.site in replies.updates:
                raise AdapterFormatError("a second update in one round")
            update = decode(reply.delta, shapes(reply.site))
            if max_update_norm is not None and update.norm() > max_update_norm * (1 + ROUNDING):
                raise AdapterFormatError(
                    f"an update of norm {update.norm():.4g}, {max_update_norm:g} is the bound"
                )
        except (AdapterFormatError, KeyError) as error:
            replies.refuse(site, number, str(error))
            continue
        replies.updates[reply.site] = update
        replies.epsilon[reply.site] = reply.epsilon
        replies.received[reply.site] = (digest(reply.delta), reply.head)
        replies.bytes += len(reply.delta)
    return replies
