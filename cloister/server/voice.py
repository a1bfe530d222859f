"""In whose voice sites are asked: each question signed for its site, or, in simulations, by nobody.

A signed question names the last head that came from its site; what answers bring of heads is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from cloister.ledger.signing import is_signed
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.protocol.signed_questions import Unsigned, signed
from cloister.server.heads import Heads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signed:
    """A coordinator's voice in one study.

    Attributes:
        key: The coordinator's.
        study: Digest of the recipe.
        document: The study as sites are sent it.
        ledgers: Public keys of the sites' ledgers, by site.
        heads: What came from them before.
    """

    key: Ed25519PrivateKey = field(repr=False)
    study: str
    document: str = field(repr=False)
    ledgers: Mapping[str, str]
    heads: Heads


Voice = Signed | Unsigned


def addressed(voice: Voice, request: RoundRequest, site: str) -> RoundRequest:
    """A question as one site gets it.

    Args:
        voice: The coordinator's.
        request: What is asked.
        site: Whom; a deployed coordinator knows it by the node's key.

    Raises:
        BadFileError: The heads cannot be read.
    """
    if isinstance(voice, Unsigned):
        return request
    seen = voice.heads.last(voice.ledgers[site])
    return signed(request, voice.key, voice.document, to=site, seen=seen)


def hear(voice: Voice, message: Message) -> None:
    """Keeps the head that an answer brings, where its site's ledger signed it.

    It counts for that alone: an answer that is late, of another norm or sent twice tells as well
    which entry its ledger holds.

    Raises:
        BadFileError: It cannot be kept.
    """
    if isinstance(voice, Unsigned):
        return
    found = _head_in(voice, message)
    if found is not None:
        voice.heads.add(*found)


def _head_in(voice: Signed, message: Message) -> tuple[str, str] | None:
    """The ledger and its head; None where there is none to believe, whatever was sent."""
    try:
        if not message.has_content():
            return None
        reply = RoundReply.from_fields(dict(message.content[RECORD]))
        ledger = voice.ledgers.get(reply.site, "")
        if reply.status is not Status.TRAINED or not reply.head:
            return None
        if not is_signed(reply.statement(voice.study), reply.signature, ledger):
            return None
        return ledger, reply.head
    except Exception as error:  # what a site sent, however it is made, ends no study
        log.warning("an answer without a head to keep: %s", type(error).__name__)
        return None
