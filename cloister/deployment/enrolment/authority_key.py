"""The authority's private key in the coordinator's folder: encrypted, unencrypted, or absent."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from cloister.deployment.enrolment import sealed_key
from cloister.deployment.enrolment.authority import Authority
from cloister.errors import BadFileError
from cloister.files import write_whole


class KeyState(StrEnum):
    """Whether an authority's key is in its folder, and whether it is encrypted."""

    PLAIN = "in the clear"
    SEALED = "encrypted"
    AWAY = "not here"


def key_state(folder: Path) -> KeyState:
    """Returns the state of the key without opening it."""
    try:
        pem = (folder / "ca.key").read_bytes()
    except OSError:
        return KeyState.AWAY
    return KeyState.SEALED if sealed_key.is_sealed(pem) else KeyState.PLAIN


def rewrite_key(folder: Path, authority: Authority, passphrase: bytes | None) -> None:
    """Rewrites an authority's key: encrypted with a passphrase, or unencrypted (None).

    If the key is a link, for example to a stick, the target is written.

    Raises:
        BadFileError: It cannot be written; the key is as before.
        UsageError: The passphrase is too short or too long.
    """
    pem = sealed_key.in_pem(authority.key, authority.certificate, passphrase)
    place = (folder / "ca.key").resolve()
    try:
        write_whole(place, pem, mode=0o600)
    except OSError as error:
        raise BadFileError(f"{place}: cannot be written ({error}); nothing was changed") from error
