"""Encrypts shares from one site to another, bound to one study, epoch, round and adapter.

ChaCha20-Poly1305 (RFC 8439) under a key from the two sites' X25519 secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from cloister.errors import RefusedError
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import derived
from cloister.secagg.shamir import SHARE_BYTES, Draw

_NONCE, _TAG = 12, 16


def sealed_bytes(shares: int) -> int:
    """Returns how many bytes this number of shares takes when sealed."""
    return _NONCE + shares * SHARE_BYTES + _TAG


def seal(
    terms: EpochTerms,
    shares: Sequence[bytes],
    secret: bytes,
    sender: str,
    receiver: str,
    number: int,
    adapter: str,
    draw: Draw,
) -> bytes:
    """Encrypts shares for one member.

    Args:
        terms: The epoch's terms.
        shares: The shares in clear.
        secret: The two sites' secret.
        sender: The sending site.
        receiver: The receiving site.
        number: The round.
        adapter: SHA-256 of the global adapter that the sender's update starts from, in hex.
        draw: Returns unpredictable bytes.
    """
    context = terms.context("shares", number, adapter, sender, receiver)
    nonce = draw(_NONCE)
    box = ChaCha20Poly1305(derived(secret, context))
    return nonce + box.encrypt(nonce, b"".join(shares), context)


def unseal(
    terms: EpochTerms,
    sealed: bytes,
    secret: bytes,
    sender: str,
    receiver: str,
    number: int,
    adapter: str,
) -> list[bytes]:
    """Decrypts shares that were sealed for this member, round and adapter.

    Raises:
        RefusedError: They were sealed for another use, or were changed on the way.
    """
    context = terms.context("shares", number, adapter, sender, receiver)
    box = ChaCha20Poly1305(derived(secret, context))
    try:
        clear = box.decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
    except (InvalidTag, ValueError) as error:
        raise RefusedError(
            f"{receiver}: shares of {sender} were not sealed for this round and adapter, or "
            "were changed on the way"
        ) from error
    return [clear[at : at + SHARE_BYTES] for at in range(0, len(clear), SHARE_BYTES)]
