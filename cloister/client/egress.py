"""Checks each message before it leaves a site: only what the plan releases may leave.

Every field is recomputed from what the site knows; none is trusted:

    site       the site file's name
    round      the question's
    status     one of the words for this step (`exchange.WORDS`)
    delta      the bytes whose hash the ledger noted as this round's release, or as that of the
               evaluation after it or of its votes, and no others
    epsilon    `Site.stated_epsilon`: the promised ε, from plan and budget alone
    head       the hash of that release's entry
    signature  Ed25519 over all fields, computed again: it has one value for each message

and every field of Flower's envelope:

    created_at  the present time, in whole seconds
    ttl         the rest of the question's, from then on
    the rest    the question's
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from flwr.app import ConfigRecord, Message, RecordDict

from cloister.adapter.compact import decode_compact
from cloister.adapter.wire import decode
from cloister.client.app import left_at
from cloister.client.evaluating import is_evaluation
from cloister.client.site import Site
from cloister.errors import AdapterFormatError, RefusedError, UsageError
from cloister.evidence.certificate_alone import MOST_BYTES, to_bytes
from cloister.ledger.certificate import entry_of
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import (
    RECORD,
    SIGNATURE_BYTES,
    WORDS,
    RoundReply,
    RoundRequest,
    Status,
    Step,
)
from cloister.secagg.epoch_keys import ADVERTISEMENT_BYTES
from cloister.secagg.messages import masked_bytes, revealed_bytes
from cloister.secagg.query import Query

Sign = Callable[[bytes], bytes]

# Relative error of a norm whose values were rounded to float32 (2⁻²⁴ each) and summed.
ROUNDING = 1e-6
# Most seconds between a reply's stamp and this check: one reading of the ledger on a busy machine.
# A later reply is refused; the coordinator asks again, and the same bytes leave.
STAMPED = 30
_SHA256 = re.compile("[0-9a-f]{64}")


def check_outgoing(
    message: Message,
    request: Message,
    site: Site | None,
    shapes: Mapping[str, tuple[int, ...]],
    sign: Sign | None = None,
    evaluated: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> None:
    """Refuses a reply that holds anything but what the plan releases.

    Args:
        message: The reply.
        request: The question that it answers.
        site: The site; None if it could not be opened: then only a status word may leave.
        shapes: Names and shapes of the tensors that leave in the round.
        sign: Signs with the key of the site's ledger, where `site` is None. None: the key cannot be
            read, and only a refusal without name or signature may leave.
        evaluated: Names and shapes of the tensors that leave in a private evaluation.

    Raises:
        RefusedError: The reply must not be sent.
    """
    if not message.has_content() or set(message.content) != {RECORD}:
        raise RefusedError("the reply has other records than the protocol's one")
    record = message.content[RECORD]
    if not isinstance(record, ConfigRecord):
        raise RefusedError("the reply's record is not a ConfigRecord")
    _check_envelope(message, request)
    asked = _asked(request)
    try:
        reply = RoundReply.from_fields(dict(record))
        if reply.round != asked.round:
            raise RefusedError("the reply is to another round")
        if reply.status not in WORDS[asked.step]:
            raise RefusedError(f"{asked.step}: {reply.status} is no answer to it")
        if reply.status is not Status.TRAINED:
            _check_word(reply, asked, site, sign)
            return
        if site is None:
            raise RefusedError("the reply has an update, but the site could not be opened")
        _check_sender(reply, site, site.ledger.sign, site.study)
        if asked.step is Step.CERTIFY:
            _check_certificate(reply, site)
            return
        if site.plan.sharing is not None:
            _check_secure(reply, asked, site, shapes, evaluated)
            return
        if asked.step is Step.EVALUATE:
            _check_release(reply, site, ReleaseKind.EVALUATION)
            decode(reply.delta, evaluated)
            return
        if asked.step is Step.VOTE:
            _check_release(reply, site, ReleaseKind.VOTE)
            decode(reply.delta, dict(site.plan.message))
            return
        _check_release(reply, site)
        _check_update(reply, site, shapes)
    except AdapterFormatError as error:
        raise RefusedError(f"the coordinator could not read the reply: {error}") from error


def _check_envelope(message: Message, request: Message) -> None:
    """Checks Flower's envelope: the question's own values, and the present time in whole
    seconds."""
    said, asked = message.metadata, request.metadata
    if said.reply_to_message_id != asked.message_id:
        raise RefusedError("the reply's envelope answers another message")
    if said.dst_node_id != asked.src_node_id:
        raise RefusedError("the reply's envelope goes to another node than the one that asked")
    stamp = said.created_at
    if stamp != int(stamp) or not 0 <= time.time() - stamp <= STAMPED:
        raise RefusedError("the reply's envelope does not have the present time in whole seconds")
    # A fresh envelope has every field of the installed release of Flower.
    fresh = vars(Message(RecordDict(), reply_to=request).metadata)
    expected = {**fresh, "_created_at": stamp, "_ttl": left_at(stamp, request)}
    if vars(said) != expected:
        raise RefusedError("the reply's envelope has other fields than the question's")


def _asked(request: Message) -> RoundRequest:
    """What was asked for; round 0 where the request cannot be read."""
    try:
        return RoundRequest.from_fields(dict(request.content[RECORD]))
    except (AdapterFormatError, KeyError, ValueError, TypeError):  # KeyError also: no content
        return RoundRequest("", 0, b"")


def _check_word(
    reply: RoundReply, asked: RoundRequest, site: Site | None, sign: Sign | None
) -> None:
    if (reply.delta, reply.epsilon, reply.head) != (b"", 0.0, ""):
        raise RefusedError("the reply has a status word and further content")
    if reply.site == "":
        if (reply.status, reply.signature) != (Status.REFUSED, b""):
            raise RefusedError("a reply without a name may only be an unsigned refusal")
        return
    _check_sender(reply, site, sign if site is None else site.ledger.sign, asked.study)


def _check_sender(reply: RoundReply, site: Site | None, sign: Sign | None, study: str) -> None:
    if site is not None and reply.site != site.name:
        raise RefusedError("the reply has another site's name")
    if sign is None or reply.signature != sign(reply.statement(study)):
        raise RefusedError("the reply is not signed by the site's ledger")


def _check_release(reply: RoundReply, site: Site, kind: ReleaseKind = ReleaseKind.TRAINING) -> None:
    """Checks that bytes, entry and ε are those in the ledger."""
    released = site.ledger.release_of(site.study, reply.round, kind)
    if released is None:
        raise RefusedError("the ledger has no release of this round")
    if (hashlib.sha256(reply.delta).hexdigest(), reply.head) != (released.sha256, released.hash):
        raise RefusedError("the update is not the one that the ledger released")
    if reply.epsilon != site.stated_epsilon():
        raise RefusedError("the reply's epsilon is not the ledger's")
    limit = site.policy.accept.max_message_bytes
    if len(reply.delta) > limit:
        raise RefusedError(
            f"accept.max_message_bytes: the update has {len(reply.delta)} bytes; at most {limit} "
            "may leave"
        )


def _check_update(reply: RoundReply, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> None:
    bound, training = site.plan.max_update_norm, site.training
    if training.adapter_dtype is None:
        norm = decode(reply.delta, shapes).norm()
    else:
        norm = decode_compact(reply.delta, shapes, dtype=training.update_dtype).norm()
    if bound is not None and norm > bound * (1 + ROUNDING):
        raise RefusedError(f"the update has norm {norm:.4g}; at most {bound:g} may leave")


def _check_secure(
    reply: RoundReply,
    asked: RoundRequest,
    site: Site,
    shapes: Mapping[str, tuple[int, ...]],
    evaluated: Mapping[str, tuple[int, ...]],
) -> None:
    """Checks a message of secure aggregation by its length; its content is uniformly random."""
    terms = site.keys.terms if site.keys is not None else None
    if terms is None:
        raise RefusedError("the reply is of secure aggregation, but the site has no keys of it")
    evaluates, votes = is_evaluation(asked), site.plan.votes is not None
    if asked.step is Step.MASK:
        sent = dict(site.plan.message) if votes else shapes
        summed = (evaluated if evaluates else sent).values()
        needed = masked_bytes(terms, sum(math.prod(shape) for shape in summed))
    elif asked.step is Step.REVEAL:
        needed = revealed_bytes(terms, len(Query.from_bytes(asked.body).boxes) + 1)
    elif asked.step in (Step.SIGN, Step.ADVERTISE):
        needed = SIGNATURE_BYTES if asked.step is Step.SIGN else ADVERTISEMENT_BYTES
    else:
        raise RefusedError(f"{asked.step}: asked in clear, and nothing leaves but under a mask")
    if len(reply.delta) != needed:
        raise RefusedError(f"{asked.step}: {len(reply.delta)} bytes; {needed} are needed")
    if asked.step is Step.MASK:
        kind = ReleaseKind.VOTE if votes else ReleaseKind.TRAINING
        kind = ReleaseKind.EVALUATION if evaluates else kind
        _check_release(reply, site, kind)
    elif (reply.head, reply.epsilon) != ("", 0.0):
        raise RefusedError(f"{asked.step}: the reply states a release, and this step has none")


def _check_certificate(reply: RoundReply, site: Site) -> None:
    """Makes the certificate again from the ledger and compares the bytes."""
    if (reply.head, reply.epsilon) != ("", 0.0):
        raise RefusedError("the reply has a certificate and further content")
    if len(reply.delta) > MOST_BYTES:
        raise RefusedError(
            f"the certificate has {len(reply.delta)} bytes; at most {MOST_BYTES} may leave"
        )
    try:
        base = str(entry_of(json.loads(reply.delta)).fields["base"])
        again = site.ledger.certificate(site.study, site=site.name, base=base)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise RefusedError("the certificate is not the ledger's") from error
    if not _SHA256.fullmatch(base) or to_bytes(again) != reply.delta:
        raise RefusedError("the certificate is not the ledger's")
