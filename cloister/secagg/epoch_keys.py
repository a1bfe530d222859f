"""Makes and reads the signed advertisement of a site's public key for an epoch.

X25519 (RFC 7748). The private half never leaves the process that made it. A missing site's masks
are removed with the seeds of one round, never with a key, which would open all earlier rounds.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from cloister.errors import AdapterFormatError, RefusedError
from cloister.ledger.signing import is_signed
from cloister.secagg.epoch_terms import EpochTerms

_KEY, _SIGNATURE = 32, 64
ADVERTISEMENT_BYTES = _KEY + _SIGNATURE


def advertise(
    terms: EpochTerms, site: str, private: X25519PrivateKey, sign: Callable[[bytes], bytes]
) -> bytes:
    """Makes an advertisement: the public key, signed by the key of the site's ledger."""
    body = private.public_key().public_bytes_raw()
    return body + sign(_statement(terms, site, body))


def read_advertisement(terms: EpochTerms, site: str, advertisement: bytes) -> bytes:
    """Reads a site's public key from its advertisement and checks the signature on it.

    Raises:
        AdapterFormatError: It has another length.
        RefusedError: The signature is not the member's, or the site is not a member.
    """
    terms.number(site)
    if len(advertisement) != ADVERTISEMENT_BYTES:
        raise AdapterFormatError(
            f"{site}: the advertisement has {len(advertisement)} bytes; {ADVERTISEMENT_BYTES} are "
            "needed"
        )
    body, signature = advertisement[:_KEY], advertisement[_KEY:]
    if not is_signed(_statement(terms, site, body), signature, terms.members[site]):
        raise RefusedError(f"{site}: the advertisement is not signed by the key of its ledger")
    return body


def agree(private: X25519PrivateKey, public_key: bytes) -> bytes:
    """Returns the shared secret of two sites (X25519).

    Raises:
        RefusedError: The public key has a small order, with which anybody could compute the secret.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:
        raise RefusedError("the public key gives no secret (X25519)") from error


def _statement(terms: EpochTerms, site: str, body: bytes) -> bytes:
    return terms.context("advertisement", site, body.hex())
