"""The key with which a site's SuperNode identifies itself: made at the site, never sent.

Flower needs a NIST elliptic curve key in OpenSSH's format (P-384 is its default).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
)

from cloister.errors import BadFileError
from cloister.files import write_whole

# Keys that stay parsed: those of as many members as a gate has places for. Parsing takes 0.2 ms of
# the 0.9 ms that a signature's check takes.
MOST_KEPT = 1024


def create_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Makes a key and writes it, mode 0600; an existing one is overwritten (rotation).

    Raises:
        BadFileError: It cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_whole(path, pem, mode=0o600)
    except OSError as error:
        raise BadFileError(f"{path}: the node's key cannot be written ({error})") from error
    return key


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads the key of a site's node.

    Raises:
        BadFileError: The file is missing, or is not a key of that kind.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BadFileError(
            f"{path}: the node's key cannot be read ({error}); join again with the invite to make "
            "another, and have it approved"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadFileError(f"{path}: not an elliptic curve key; restore it, or join again")
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key as Flower's SuperLink registers it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign_as_node(key: ec.EllipticCurvePrivateKey, body: bytes) -> bytes:
    """Signs some bytes (ECDSA, SHA-256)."""
    return key.sign(body, ec.ECDSA(hashes.SHA256()))


def is_node_signed(body: bytes, signature: bytes, pem: str) -> bool:
    """Whether a node's key signed some bytes.

    Only keys on P-384 are accepted, in one text form, because keys are compared as texts.
    """
    key = _public_key(pem)
    if key is None:
        return False
    try:
        key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=MOST_KEPT)
def _public_key(pem: str) -> ec.EllipticCurvePublicKey | None:
    """A node's key on P-384 in the one text form; None for any other text."""
    try:
        key = load_pem_public_key(pem.encode())
    except (UnsupportedAlgorithm, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        return None
    same = pem.encode() == key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key if same else None
