"""The last look at a message before it leaves a site: nothing but what the plan lets out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from flwr.app import ConfigRecord, Message

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.adapter.wire import decode
from cloister.client.site import Site
from cloister.errors import AdapterFormatError, RefusedError, UsageError
from cloister.privacy.certificate import entry_of
from cloister.privacy.certificate_alone import MOST_BYTES, to_bytes
from cloister.privacy.keys import is_signed
from cloister.privacy.secagg.keys import ADVERTISEMENT_BYTES
from cloister.privacy.secagg.messages import masked_bytes, revealed_bytes
from cloister.privacy.secagg.question import Question

# Relative error of a norm whose values were rounded to float32 (2⁻²⁴ each) and summed.
ROUNDING = 1e-6
# Of Ed25519 (RFC 8032).
SIGNATURE_BYTES = 64
_SHA256 = re.compile("[0-9a-f]{64}")


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
        if reply.round != _asked(request).round:
            raise RefusedError("a reply to another round")
        if reply.status is not Status.TRAINED:
            _check_status(reply, site)
            return
        if site is None:
            raise RefusedError("an update of a site that could not be opened")
        if _asked(request).step is Step.CERTIFY:
            _check_certificate(reply, site)
            return
        if site.plan.sharing is not None:
            _check_secure(reply, _asked(request), site, shapes)
            return
        _check_update(reply, site, shapes)
    except AdapterFormatError as error:
        raise RefusedError(f"a reply that the coordinator could not read: {error}") from error


def _asked(request: Message) -> RoundRequest:
    """What was asked for; round 0 where the request cannot be read."""
    try:
        return RoundRequest.from_fields(dict(request.content[RECORD]))
    except (AdapterFormatError, KeyError):
        return RoundRequest("", 0, b"")


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


def _check_secure(
    reply: RoundReply, asked: RoundRequest, site: Site, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """What secure aggregation sends is uniform, or shares of it: its length is what can be told."""
    terms = site.keys.terms if site.keys is not None else None
    if terms is None:
        raise RefusedError("an answer of secure aggregation without its keys")
    _check_sender(reply, site)
    if asked.step is Step.MASK:
        needed = masked_bytes(terms, sum(math.prod(shape) for shape in shapes.values()))
    elif asked.step is Step.REVEAL:
        needed = revealed_bytes(terms, len(Question.from_bytes(asked.body).boxes) + 1)
    else:
        needed = SIGNATURE_BYTES if asked.step is Step.SIGN else ADVERTISEMENT_BYTES
    if len(reply.delta) != needed:
        raise RefusedError(f"{asked.step}: {len(reply.delta)} bytes; {needed} are what it takes")
    if asked.step is not Step.MASK and (reply.head, reply.epsilon) != ("", 0.0):
        raise RefusedError(f"{asked.step}: an answer that tells of a release")


def _check_certificate(reply: RoundReply, site: Site) -> None:
    """A certificate is what the ledger gives, byte for byte: made again, and compared."""
    _check_sender(reply, site)
    if (reply.head, reply.epsilon) != ("", 0.0):
        raise RefusedError("a certificate with more than itself")
    if len(reply.delta) > MOST_BYTES:
        raise RefusedError(f"a certificate of {len(reply.delta)} bytes; {MOST_BYTES} at most")
    try:
        base = str(entry_of(json.loads(reply.delta)).fields["base"])
        again = site.ledger.certificate(site.study, site=site.name, base=base)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise RefusedError("a certificate that the ledger does not give") from error
    if not _SHA256.fullmatch(base) or to_bytes(again) != reply.delta:
        raise RefusedError("a certificate that the ledger does not give")


def _check_sender(reply: RoundReply, site: Site) -> None:
    if reply.site != site.name:
        raise RefusedError("a reply in another's name")
    limit = site.policy.accept.max_message_bytes
    if len(reply.delta) > limit:
        raise RefusedError(
            f"accept.max_message_bytes: an update of {len(reply.delta)} bytes, {limit} are allowed"
        )
    if not is_signed(reply.statement(site.study), reply.signature, site.ledger.public_key):
        raise RefusedError("a reply that its own ledger did not sign")


def _check_update(reply: RoundReply, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> None:
    _check_sender(reply, site)
    bound = site.plan.max_update_norm
    norm = decode(reply.delta, shapes).norm()
    if bound is not None and norm > bound * (1 + ROUNDING):
        raise RefusedError(f"an update of norm {norm:.4g}, {bound:g} is the bound")
