"""Checks that a question is signed by the site's coordinator and addressed to this site.

The carriers of a question (Flower's SuperLink, any process on its machine, the gate, another
member) can put messages into a site's queue. The signature covers study, document, round, step,
adapter, body, addressee and the head of the site's ledger that the coordinator has, so none of them
can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.errors import StrangerError
from cloister.ledger.signing import is_signed
from cloister.protocol.exchange import RoundRequest


@dataclass(frozen=True)
class Unsigned:
    """States that coordinator and sites are one program (a simulation, an audit): nobody signs.

    It is never a default: both the asking and the answering side must pass it explicitly.
    """


@dataclass(frozen=True)
class TrustedCoordinator:
    """The coordinator from which a deployed site accepts questions.

    Attributes:
        key: The coordinator's public key, 64 hex digits.
        site: The site's own name; questions to other sites are not answered.
    """

    key: str
    site: str


# A deployed site reads its trusted key for every question, so that a renewed or removed key takes
# effect with the next one.
Trusted = Callable[[], TrustedCoordinator] | Unsigned


def signed(
    request: RoundRequest, key: Ed25519PrivateKey, document: str, *, to: str, seen: str
) -> RoundRequest:
    """Returns a question, addressed to one site and signed.

    Args:
        request: The question.
        key: The coordinator's key.
        document: The study's text, as it is sent to sites.
        to: The site's name.
        seen: The last head that the coordinator received from it; empty: none.
    """
    addressed = replace(request, to=to, seen=seen)
    return replace(addressed, signature=key.sign(addressed.statement(document)))


def check_asked(request: RoundRequest, document: str, trusted: Trusted) -> None:
    """Checks that a question is signed by the coordinator, for this site.

    Args:
        request: The question as it was received.
        document: The study's text that came with it, not parsed.
        trusted: The coordinator whose questions are answered.

    Raises:
        StrangerError: It is addressed to another site, or the trusted key did not sign it.
        BadFileError: The trusted key cannot be read.

    Guarantees:
        A function of the question, the document's bytes, the site's name and one public key.
        The document is not parsed, and neither ledger nor records are read.
    """
    if isinstance(trusted, Unsigned):
        return
    coordinator = trusted()
    if request.to != coordinator.site:
        raise StrangerError(
            f"a question to {request.to[:64]!r}, but this site is {coordinator.site}: it is for "
            "another site, or its coordinator runs another version of cloister"
        )
    if not is_signed(request.statement(document), request.signature, coordinator.key):
        raise StrangerError(
            "a question without a valid signature of the coordinator's key: somebody else put it "
            "into the SuperLink or changed it, or the coordinator's key was renewed and is not "
            "trusted here yet (cloister site trust)"
        )
