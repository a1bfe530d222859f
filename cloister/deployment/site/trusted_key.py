"""The coordinator's key whose questions a site answers, and how its operator changes it."""

from __future__ import annotations

from cloister.client.site_file import SiteFile
from cloister.deployment.enrolment.authority import compare_fingerprints
from cloister.deployment.enrolment.coordinator_key import (
    LARGEST,
    is_public_key,
    key_fingerprint,
    read_public_key,
)
from cloister.deployment.site.joining import SiteMembership
from cloister.errors import BadFileError, UsageError
from cloister.files import write_whole
from cloister.protocol.signed_questions import TrustedCoordinator


def trusted_coordinator(file: SiteFile) -> TrustedCoordinator:
    """The coordinator whose questions this site answers, read from its folder.

    Raises:
        BadFileError: There is no readable key; then no question is answered.
    """
    place = SiteMembership.of(file).coordinator
    try:
        with place.open("rb") as opened:
            text = opened.read(LARGEST).decode("ascii").strip()
    except FileNotFoundError as error:
        raise BadFileError(
            f"{place}: missing: this site has no coordinator's key yet, and answers no questions "
            "without one; ask the coordinator for it (cloister server key prints it) and accept "
            f"it: cloister site trust {file.path} KEY --fingerprint …"
        ) from error
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"{place}: the coordinator's key cannot be read ({error}); the agent's user must be "
            "able to; start the service again, or accept the key again: cloister site trust"
        ) from error
    if not is_public_key(text):
        raise BadFileError(
            f"{place}: damaged: 64 hex digits are needed; accept the key again: cloister site trust"
        )
    return TrustedCoordinator(text, file.site.name)


def trust(file: SiteFile, given: str, fingerprint: str | None) -> str:
    """Sets the coordinator's key whose questions this site answers.

    Args:
        file: The site's.
        given: The public key, or a file that holds it.
        fingerprint: The key's fingerprint, as the coordinator told it over another channel.

    Returns:
        The key; it is used from the next question on, and earlier keys no longer.

    Raises:
        BadFileError: It is not a key, the site has joined no federation, or the file cannot be
            written.
        UsageError: No fingerprint was given.
        NetworkError: The fingerprint differs.
    """
    place = SiteMembership.of(file)
    assert place.invite  # raises if the site joined no federation
    key = read_public_key(given)
    own = key_fingerprint(key)
    if fingerprint is None:
        raise UsageError(
            "--fingerprint: missing; ask the coordinator over another channel (telephone) for its "
            f"key's and compare: this one's is {own}"
        )
    compare_fingerprints(
        fingerprint,
        own,
        f"{given[:64]}: the key's fingerprint is {own}, but {fingerprint} was given; somebody "
        "changed it on its way, or it is another coordinator's: do not accept it",
    )
    try:
        write_whole(place.coordinator, key.encode() + b"\n")
    except OSError as error:
        raise BadFileError(
            f"{place.path}: cannot be written ({error}); correct this first"
        ) from error
    return key
