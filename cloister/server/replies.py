"""The replies of one round: which count, and what the others mean."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message

from cloister.adapter.exchange import RECORD, RoundReply, Status
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
        received: SHA-256 of what came, by site.
        bytes: Of all updates.
        retired: Sites whose budget is spent: they take part no more.
        spent: Sites that charged this round before and were cut off: they go on with the next.
    """

    updates: dict[str, Adapter] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    received: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    retired: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)


def read_replies(
    messages: Iterable[Message],
    sites: tuple[str, ...],
    number: int,
    shapes: Mapping[str, tuple[int, ...]],
    max_update_norm: float | None,
) -> Replies:
    """Sorts a round's replies; what is not as it must be is logged and left out.

    Args:
        messages: As they arrived.
        sites: Names of all sites.
        number: The round.
        shapes: Names and shapes of an update.
        max_update_norm: Bound that every site agreed to; None: no bound.
    """
    replies = Replies()
    for message in messages:
        if not message.has_content():
            log.warning("round %d: a site failed, code %d", number, message.error.code)
            continue
        try:
            reply = RoundReply.from_fields(dict(message.content[RECORD]))
            if reply.site in sites and reply.status in (Status.BUDGET, Status.SPENT):
                group = replies.retired if reply.status is Status.BUDGET else replies.spent
                group.add(reply.site)
                continue
            if reply.status is not Status.TRAINED or reply.round != number:
                log.warning("round %d: %s: %s", number, reply.site or "a site", reply.status)
                continue
            if reply.site not in sites or reply.site in replies.updates:
                raise AdapterFormatError(f"unexpected or repeated site {reply.site!r}")
            update = decode(reply.delta, shapes)
            if max_update_norm is not None and update.norm() > max_update_norm * (1 + ROUNDING):
                raise AdapterFormatError(
                    f"{reply.site}: an update of norm {update.norm():.4g}, "
                    f"{max_update_norm:g} is the bound"
                )
        except (AdapterFormatError, KeyError) as error:
            log.warning("round %d: a reply was discarded: %s", number, error)
            continue
        replies.updates[reply.site] = update
        replies.epsilon[reply.site] = reply.epsilon
        replies.received[reply.site] = digest(reply.delta)
        replies.bytes += len(reply.delta)
    return replies
