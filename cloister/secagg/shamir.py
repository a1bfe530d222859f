"""Shamir's secret sharing (1979, doi:10.1145/359168.359176) of 32-byte secrets.

    f(x) = s + a₁ x + … + a_{T−1} x^{T−1}  mod p        share n is f(n), n from 1

Any T shares give s = f(0) by Lagrange's formula; T − 1 are independent of s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloister.errors import AdapterFormatError

# The least prime above 2²⁵⁶.
PRIME = 2**256 + 297
SECRET_BYTES, SHARE_BYTES = 32, 33
# Random bytes for a coefficient: modulo p they are uniform up to 2⁻²⁵⁵.
_WIDE = 64

Draw = Callable[[int], bytes]


def split(secret: bytes, threshold: int, count: int, draw: Draw) -> list[bytes]:
    """Splits a secret into shares.

    Args:
        secret: 32 bytes.
        threshold: T, how many shares recover it, from 1 to `count`.
        count: How many shares are made.
        draw: Returns this number of unpredictable bytes, as `os.urandom`.

    Returns:
        Shares number 1 to `count` in order, each of `SHARE_BYTES`.

    Guarantees:
        T − 1 shares are independent of the secret, up to 2⁻²⁵⁵ (Shamir 1979, section 2).
    """
    assert len(secret) == SECRET_BYTES
    assert 1 <= threshold <= count
    terms = [int.from_bytes(secret, "big")]
    terms += [int.from_bytes(draw(_WIDE), "big") % PRIME for _ in range(threshold - 1)]
    shares = []
    for number in range(1, count + 1):
        value = 0
        for term in reversed(terms):
            value = (value * number + term) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Recovers a secret from its shares.

    Args:
        shares: Shares by their number, at least as many as `split` had as its threshold.

    Returns:
        The 32 bytes of the secret. Fewer shares than the threshold give other bytes, and no error.

    Raises:
        AdapterFormatError: They are not shares of one 32-byte secret.
    """
    total = 0
    for number, share in shares.items():
        if len(share) != SHARE_BYTES:
            raise AdapterFormatError(f"a share has {len(share)} bytes; {SHARE_BYTES} are needed")
        above = below = 1
        for other in shares:
            if other != number:
                above = above * other % PRIME
                below = below * (other - number) % PRIME
        total = (total + int.from_bytes(share, "big") * above * pow(below, -1, PRIME)) % PRIME
    if total >> (8 * SECRET_BYTES):
        raise AdapterFormatError("the shares do not belong to one secret")
    return total.to_bytes(SECRET_BYTES, "big")
