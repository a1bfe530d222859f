"""The last look at a message before it leaves a site: nothing but what the plan lets out."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, Message

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.adapter.wire import decode
from cloister.client.site import Site
from cloister.errors import AdapterFormatError, RefusedError
from cloister.privacy.keys import is_signed

# Relative error of a norm whose values were rounded to float32 (2⁻²⁴ each) and summed.
ROUNDING = 1e-6
# Of Ed25519 (RFC 8032).
SIGNATURE_BYTES = 64


def check_outgoing(
    message: Message, request: Message, site: Site | None, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuses a reply that holds anything else than the plan lets out.

    Args:
        message: The reply.
        request: What it answers.
        site: Who answers; None where the site could not be opened: then only a status.
        shapes: Names and shapes of what trains in the round.

    Raises:
        RefusedError: It is not sent.
    """
    if not message.has_content() or set(message.content) != {RECORD}:
        raise RefusedError("a reply of other records than agreed")
    record = message.content[RECORD]
    if not isinstance(record, ConfigRecord):
        raise RefusedError("a reply of another kind of record than agreed")
    if message.metadata.reply_to_message_id != request.metadata.message_id:
        raise RefusedError("a reply to another message")
    if message.metadata.dst_node_id != request.metadata.src_node_id:
        raise RefusedError("a reply to somebody else than who asked")
    try:
        reply = RoundReply.from_fields(dict(record))
        if reply.round != _round_of(request):
            raise RefusedError("a reply to another round")
        if reply.status is not Status.TRAINED:
            _check_status(reply, site)
            return
        if site is None:
            raise RefusedError("an update of a site that could not be opened")
        _check_update(reply, site, shapes)
    except AdapterFormatError as error:
        raise RefusedError(f"a reply that the coordinator could not read: {error}") from error


def _round_of(request: Message) -> int:
    """The round that was asked for; 0 where the request cannot be read."""
    try:
        return RoundRequest.from_fields(dict(request.content[RECORD])).round
    except (AdapterFormatError, KeyError):
        return 0


def _check_status(reply: RoundReply, site: Site | None) -> None:
    if (reply.delta, reply.epsilon, reply.head) != (b"", 0.0, ""):
        raise RefusedError("a status with more than its word")
    if reply.site == "":
        if (reply.status, reply.signature) != (Status.FAILED, b""):
            raise RefusedError("a status of nobody that says more than a failure")
    elif len(reply.signature) != SIGNATURE_BYTES:
        raise RefusedError("a status that its own ledger did not sign")
    elif site is not None and reply.site != site.name:
        raise RefusedError("a status in another's name")


def _check_update(reply: RoundReply, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if reply.site != site.name:
        raise RefusedError("a reply in another's name")
    limit = site.policy.accept.max_message_bytes
    if len(reply.delta) > limit:
        raise RefusedError(
            f"accept.max_message_bytes: an update of {len(reply.delta)} bytes, {limit} are allowed"
        )
    bound = site.plan.max_update_norm
    norm = decode(reply.delta, shapes).norm()
    if bound is not None and norm > bound * (1 + ROUNDING):
        raise RefusedError(f"an update of norm {norm:.4g}, {bound:g} is the bound")
    if not is_signed(reply.statement(site.study), reply.signature, site.ledger.public_key):
        raise RefusedError("a reply that its own ledger did not sign")
