"""Whose questions a site answers: its coordinator's, signed and addressed to it, and no others.

What carries a question (Flower's SuperLink, whoever runs on its machine, the gate, another member)
can put messages into a site's queue. The signature covers study, document, round, step, adapter,
body, addressee and the ledger's head that the coordinator has, so none of them can be another.
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
    """Coordinator and sites are one program (a simulation, an audit): nobody signs or checks.

    There is no default by which this is reached: whoever asks and whoever answers names it.
    """


@dataclass(frozen=True)
class TrustedCoordinator:
    """From whom a deployed site takes questions.

    Attributes:
        key: The coordinator's public key, 64 hex digits.
        site: The site's own name: no question to another is answered.
    """

    key: str
    site: str


# A deployed site reads its trusted key for every question, so that a key that was renewed, or
# taken away, holds from the next one on.
Trusted = Callable[[], TrustedCoordinator] | Unsigned


def signed(
    request: RoundRequest, key: Ed25519PrivateKey, document: str, *, to: str, seen: str
) -> RoundRequest:
    """A question as it may be put to one site.

    Args:
        request: What is asked.
        key: The coordinator's.
        document: The study as sites are sent it.
        to: The site's name.
        seen: The last head that the coordinator had from it; empty where none.
    """
    addressed = replace(request, to=to, seen=seen)
    return replace(addressed, signature=key.sign(addressed.statement(document)))


def check_asked(request: RoundRequest, document: str, trusted: Trusted) -> None:
    """Checks that a question is the coordinator's own, put to this site.

    Args:
        request: As it came.
        document: The study that came with it, unread.
        trusted: Whose questions are answered.

    Raises:
        StrangerError: It is addressed to another site, or not signed by the trusted key as it is.
        BadFileError: The trusted key cannot be read.

    Guarantees:
        A function of the question, the document's bytes, the site's name and one public key.
        Nothing of the document is parsed, and neither ledger nor record is looked at.
    """
    if isinstance(trusted, Unsigned):
        return
    coordinator = trusted()
    if request.to != coordinator.site:
        raise StrangerError(
            f"a question to {request.to[:64]!r}; this site is {coordinator.site}: it was not put "
            "to this site, or its coordinator runs another version of cloister"
        )
    if not is_signed(request.statement(document), request.signature, coordinator.key):
        raise StrangerError(
            "a question that the coordinator's key did not sign as it came: somebody else put it "
            "into the SuperLink, or changed it, or the coordinator's key was renewed and is not "
            "trusted here yet (cloister site trust)"
        )
