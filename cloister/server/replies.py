"""Sorts the replies of one round: which count, and what the others mean.

A site's message is parsed in `server.boundary`: an error in it excludes that site from the round,
and no other site. What happens to a parsed value (`take`) is outside of that boundary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from flwr.app import ConfigRecord, Message

from cloister.adapter.compact import compact_length, decode_compact
from cloister.adapter.formats import Dtype, Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest, encoded_length
from cloister.errors import AdapterFormatError
from cloister.ledger.signing import is_signed
from cloister.protocol.exchange import RECORD, RoundReply, Status
from cloister.server.boundary import Unreadable, reading

log = logging.getLogger(__name__)

T = TypeVar("T")

# Relative error of a norm whose values were rounded to float32 on the wire (2⁻²⁴ each), with room
# for the sum's own rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class ReplyTerms:
    """The facts that a study's replies are checked against.

    Attributes:
        digest: Digest of its recipe.
        sites: Names of all sites.
        keys: Public keys of the sites' ledgers; None: signatures are not checked.
    """

    digest: str
    sites: tuple[str, ...]
    keys: Mapping[str, str] | None


@dataclass(frozen=True)
class Awaited(Generic[T]):
    """The payload that a site may answer with: its largest size, and how it is parsed.

    Attributes:
        most_bytes: Longest payload; a longer one is neither hashed nor parsed.
        read: Parses its payload; raises CloisterError where that is invalid.
    """

    most_bytes: int
    read: Callable[[bytes], T]


@dataclass
class Replies:
    """The sorted replies of a round.

    Attributes:
        counted: Sites whose reply is valid and counts.
        epsilon: Promised ε by site, as the sites state it.
        received: SHA-256 of the payload and of the ledger's entry for it, by site.
        bytes: Bytes of all updates.
        retired: Sites whose budget is spent; they no longer take part.
        spent: Sites that charged this round and were interrupted; they go on with the next.
        unfit: Sites whose reply is invalid; they would probably send it again, so they are not
            asked again.
        nodes: Flower's node id of each site that counts.
        came: Ids of the nodes that answered, except those whose budget is spent.
        refused: Why a reply does not count, in words, by site; the name is "a site" if the reply
            did not state one.
    """

    counted: list[str] = field(default_factory=list)
    epsilon: dict[str, float] = field(default_factory=dict)
    received: dict[str, tuple[str, str]] = field(default_factory=dict)
    bytes: int = 0
    retired: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    nodes: dict[str, int] = field(default_factory=dict)
    came: set[int] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, site: str, number: int, why: str) -> None:
        """Notes and logs a reply that does not count."""
        self.refused[site or "a site"] = why
        log.warning("round %d: %s: %s", number, site or "a site", why)


def read_replies(
    answers: Iterable[tuple[str, Message]],
    terms: ReplyTerms,
    number: int,
    awaited: Callable[[str], Awaited[T]],
    take: Callable[[str, T], None],
    wanted: Status = Status.TRAINED,
) -> Replies:
    """Sorts a round's replies; invalid ones are logged and left out.

    Args:
        answers: The answers in order of arrival, each with the site whose node sent it; "" if the
            site is not known.
        terms: The facts that every reply is checked against.
        number: The round.
        awaited: Returns what a site of the study may answer.
        take: Called with each answer that counts, as it arrives.
        wanted: The word of an answer that counts.

    Guarantees:
        An exception while reading a message does not pass; one of `awaited` or `take` does. A
        node's message counts for or against its own site only, whatever name is in it.
    """
    sorting = _Sorting(terms, number, awaited, take, wanted)
    for sender, message in answers:
        said = reading(sender, partial(_said, message))
        if isinstance(said, Unreadable):
            sorting.leave_out(sender, said.why)
        else:
            sorting.sort(said, sender)
    replies = sorting.replies
    replies.unfit -= set(replies.counted)
    return replies


def update_reader(
    bound: float | None,
    dtype: Dtype,
    shapes: Callable[[str], Sequence[Shapes]],
    *,
    is_compact: bool = False,
) -> Callable[[str], Awaited[Adapter]]:
    """Returns a reader of updates that are sent in clear.

    Args:
        bound: Norm to which every site clips its update; None: no bound.
        dtype: Type of the values in a message.
        shapes: Names and shapes that a site's update may have, one or more.
        is_compact: Whether messages leave out names and shapes.
    """
    read_message = decode_compact if is_compact else decode
    length = compact_length if is_compact else encoded_length

    def awaited(site: str) -> Awaited[Adapter]:
        kinds = shapes(site)

        def read(payload: bytes) -> Adapter:
            update = read_message(payload, *kinds, dtype=dtype)
            if bound is not None and update.norm() > bound * (1 + ROUNDING):
                raise AdapterFormatError(
                    f"the update has norm {update.norm():.4g}; at most {bound:g} is allowed"
                )
            return update

        return Awaited(max(length(kind, dtype) for kind in kinds), read)

    return awaited


@dataclass(frozen=True)
class _Said:
    """A message that was parsed inside the boundary.

    Attributes:
        node: Flower's id of the sender's node.
        reply: The reply, or why it cannot be read.
        code: Flower's error code in place of a reply.
    """

    node: int
    reply: RoundReply | Unreadable
    code: int | None = None


def _said(message: Message) -> _Said:
    node = int(message.metadata.src_node_id)
    if not message.has_content():
        return _Said(node, Unreadable(""), int(message.error.code))

    def read() -> RoundReply:
        record = message.content.get(RECORD)
        if not isinstance(record, ConfigRecord):
            raise AdapterFormatError("the message lacks the protocol's record")
        return RoundReply.from_fields(dict(record))

    return _Said(node, reading(f"node {node}", read))


@dataclass
class _Sorting(Generic[T]):
    """Checks each message of a round and adds it to the right part of `Replies`."""

    terms: ReplyTerms
    number: int
    awaited: Callable[[str], Awaited[T]]
    take: Callable[[str, T], None]
    wanted: Status
    replies: Replies = field(default_factory=Replies)

    def sort(self, said: _Said, sender: str) -> None:
        """Sorts one parsed message."""
        replies, number = self.replies, self.number
        if said.code is not None:
            replies.refuse(sender, number, f"no content, Flower's error {said.code}")
            return
        replies.came.add(said.node)
        reply = said.reply
        if isinstance(reply, Unreadable):
            self.leave_out(sender, reply.why)
            return
        if reply.site == "" and reply.status in (Status.REFUSED, Status.FAILED):
            replies.refuse(sender, number, f"it says: {reply.status}, before it could sign")
            return
        is_ours = reply.site in self.terms.sites
        site = sender or (reply.site if is_ours else "")
        may = self.awaited(reply.site) if is_ours else None  # ours: outside the boundary
        most = 0 if may is None else may.most_bytes
        fault = reading(site, lambda: _check_sender(reply, sender, self.terms, number, most))
        if isinstance(fault, Unreadable):
            self.leave_out(site, fault.why)
            return
        assert may is not None
        self._count(reply, said.node, may)

    def leave_out(self, site: str, why: str) -> None:
        """Notes an invalid message; its site is not asked again, as it would probably send it
        again."""
        self.replies.refuse(site, self.number, why)
        self.replies.unfit |= {site} & set(self.terms.sites)

    def _count(self, reply: RoundReply, node: int, may: Awaited[T]) -> None:
        """Counts a reply whose sender was checked."""
        replies, site = self.replies, reply.site
        if reply.status is Status.BUDGET:
            replies.retired.add(site)
            replies.came.discard(node)
        elif reply.status is Status.SPENT:
            replies.spent.add(site)
        elif reply.status is not self.wanted:
            replies.refuse(site, self.number, f"it says: {reply.status.value}")
        elif site in replies.counted:
            self.leave_out(site, "a second update in one round")
        elif isinstance(value := reading(site, lambda: may.read(reply.delta)), Unreadable):
            self.leave_out(site, value.why)
        else:
            self.take(site, value)
            replies.counted.append(site)
            replies.nodes[site] = node
            replies.epsilon[site] = reply.epsilon
            replies.received[site] = (digest(reply.delta), reply.head)
            replies.bytes += len(reply.delta)


def _check_sender(
    reply: RoundReply, sender: str, terms: ReplyTerms, number: int, most_bytes: int
) -> None:
    """Raises AdapterFormatError unless the reply is this round's, of the site that sent it."""
    if reply.site not in terms.sites:
        raise AdapterFormatError("the site is not in this study")
    if sender and reply.site != sender:
        raise AdapterFormatError(f"the node of {sender} answers in the name of {reply.site}")
    if len(reply.delta) > most_bytes:  # before the signature, which covers the payload's hash
        raise AdapterFormatError(f"{len(reply.delta)} bytes; at most {most_bytes} are expected")
    if terms.keys is not None and not is_signed(
        reply.statement(terms.digest), reply.signature, terms.keys.get(reply.site, "")
    ):
        raise AdapterFormatError(f"not signed by the ledger's key of {reply.site}")
    if reply.round != number:
        raise AdapterFormatError(f"the answer is to round {reply.round}")
