"""The replies of one round: which count, and what the others mean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message

from cloister.adapter.exchange import RECORD, RoundReply, Status
from cloister.adapter.formats import Dtype, Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest
from cloister.errors import AdapterFormatError
from cloister.privacy.keys import is_signed

log = logging.getLogger(__name__)

T = TypeVar("T")

# Relative error of a norm whose values were rounded to float32 on the wire (2⁻²⁴ each), with room
# for the sum's own rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Terms:
    """What a study's replies are held against.

    Attributes:
        digest: Of its recipe.
        sites: Names of all sites.
        keys: Public keys of the sites' ledgers; None: signatures are not checked.
    """

    digest: str
    sites: tuple[str, ...]
    keys: Mapping[str, str] | None


@dataclass
class Replies:
    """What came back in a round.

    Attributes:
        counted: Sites whose reply is what it must be.
        epsilon: ε promised, by site, as the sites state it.
        received: SHA-256 of what came, and of the ledger's entry for it, by site.
        bytes: Of all updates.
        retired: Sites whose budget is spent: they take part no more.
        spent: Sites that charged this round before and were cut off: they go on with the next.
        unfit: Sites whose reply came and cannot count: asked again they might say the same.
        nodes: Flower's id of the node of each that counts.
        refused: Why a site's reply does not count, in words, by site; "a site" where it did not
            say which.
    """

    counted: list[str] = field(default_factory=list)
    epsilon: dict[str, float] = field(default_factory=dict)
    received: dict[str, tuple[str, str]] = field(default_factory=dict)
    bytes: int = 0
    retired: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    nodes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, site: str, number: int, why: str) -> None:
        """Notes and logs a reply that does not count."""
        self.refused[site or "a site"] = why
        log.warning("round %d: %s: %s", number, site or "a site", why)


def read_replies(
    answers: Iterable[tuple[str, Message]],
    terms: Terms,
    number: int,
    read: Callable[[str, bytes], T],
    take: Callable[[str, T], None],
    wanted: Status = Status.TRAINED,
) -> Replies:
    """Sorts a round's replies; what is not as it must be is logged and left out.

    Args:
        answers: As they arrived, each with the site whose node sent it; "" where nothing tells.
        terms: What every reply is held against.
        number: The round.
        read: What a site's bytes stand for; raises AdapterFormatError where nothing.
        take: Given each answer that counts, as it arrives.
        wanted: The word of an answer that counts.
    """
    replies = Replies()
    for sender, message in answers:
        if not message.has_content():
            replies.refuse(sender, number, f"no content, Flower's error {message.error.code}")
            continue
        site = sender
        try:
            reply = RoundReply.from_fields(dict(message.content[RECORD]))
            if reply.site == "" and reply.status in (Status.REFUSED, Status.FAILED):
                replies.refuse(sender, number, f"it says: {reply.status}, before it could sign")
                continue
            site = reply.site if reply.site in terms.sites else sender
            _check_sender(reply, sender, terms, number)
            if reply.status in (Status.BUDGET, Status.SPENT):
                group = replies.retired if reply.status is Status.BUDGET else replies.spent
                group.add(reply.site)
                continue
            if reply.status is not wanted:
                replies.refuse(site, number, f"it says: {reply.status.value}")
                continue
            if reply.site in replies.counted:
                raise AdapterFormatError("a second update in one round")
            value = read(reply.site, reply.delta)
        except (AdapterFormatError, KeyError) as error:
            replies.refuse(site, number, str(error))
            replies.unfit |= {sender or site} & set(terms.sites)
            continue
        take(reply.site, value)
        replies.counted.append(reply.site)
        replies.nodes[reply.site] = message.metadata.src_node_id
        replies.epsilon[reply.site] = reply.epsilon
        replies.received[reply.site] = (digest(reply.delta), reply.head)
        replies.bytes += len(reply.delta)
    replies.unfit -= set(replies.counted)
    return replies


def update_reader(
    bound: float | None, dtype: Dtype, shapes: Callable[[str], Sequence[Shapes]]
) -> Callable[[str, bytes], Adapter]:
    """Reads updates in clear.

    Args:
        bound: Norm that every site agreed to clip what it sends to; None: no bound.
        dtype: What they travel as.
        shapes: Names and shapes that a site's update may have, one or more.
    """

    def read(site: str, payload: bytes) -> Adapter:
        update = decode(payload, *shapes(site), dtype=dtype)
        if bound is not None and update.norm() > bound * (1 + ROUNDING):
            raise AdapterFormatError(
                f"an update of norm {update.norm():.4g}, {bound:g} is the bound"
            )
        return update

    return read


def _check_sender(reply: RoundReply, sender: str, terms: Terms, number: int) -> None:
    """Raises AdapterFormatError unless the reply is this round's, of the site that sent it."""
    if reply.site not in terms.sites:
        raise AdapterFormatError("a site that is not of this study")
    if sender and reply.site != sender:
        raise AdapterFormatError(f"the node of {sender} answers in the name of {reply.site}")
    if terms.keys is not None and not is_signed(
        reply.statement(terms.digest), reply.signature, terms.keys.get(reply.site, "")
    ):
        raise AdapterFormatError(f"not signed by the ledger's key of {reply.site}")
    if reply.round != number:
        raise AdapterFormatError(f"an answer to round {reply.round}")
