"""Signs each question for its site; in simulations questions are unsigned.

A signed question names the last ledger head that came from its site. Heads in answers are kept.
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
from cloister.server.ledger_heads import Heads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signed:
    """Signs a coordinator's questions in one study, and stores the heads in the answers.

    Attributes:
        key: The coordinator's private key.
        study: Digest of the recipe.
        document: The study's document, as sites get it.
        ledgers: Public keys of the sites' ledgers, by site.
        heads: The heads that came from these ledgers.
    """

    key: Ed25519PrivateKey = field(repr=False)
    study: str
    document: str = field(repr=False)
    ledgers: Mapping[str, str]
    heads: Heads


Voice = Signed | Unsigned


def addressed(voice: Voice, request: RoundRequest, site: str) -> RoundRequest:
    """Returns a question addressed to one site, and signed where the voice signs.

    Args:
        voice: The coordinator's.
        request: The question.
        site: The addressed site; a deployed coordinator knows it by the node's key.

    Raises:
        BadFileError: The heads cannot be read.
    """
    if isinstance(voice, Unsigned):
        return request
    seen = voice.heads.last(voice.ledgers[site])
    return signed(request, voice.key, voice.document, to=site, seen=seen)


def hear(voice: Voice, message: Message) -> None:
    """Keeps the head in an answer, if the site's ledger signed it.

    Late, repeated and otherwise invalid answers count here too: their signature shows which entry
    the ledger has.

    Raises:
        BadFileError: The head cannot be written.
    """
    if isinstance(voice, Unsigned):
        return
    found = _head_in(voice, message)
    if found is not None:
        voice.heads.add(*found)


def _head_in(voice: Signed, message: Message) -> tuple[str, str] | None:
    """The ledger and its head; None if the message has no validly signed head."""
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
    except Exception as error:  # no message of a site may end a study
        log.warning("an answer's head cannot be read: %s", type(error).__name__)
        return None
