"""Replacement of a coordinator's certificate authority without locking out a site.

announced   ca-next.* is made; succession.json names it, signed by the present authority. Sites
            load that document and trust both.
switched    ca-next.* becomes ca.*; the gate uses a certificate of the new one. A site that has
            not loaded the document cannot connect until it does.
over        from the time in the document on, sites trust only the new authority.

The gate shows one certificate at a time, so every site has to trust both before the switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.enrolment.authority import create_authority, load_certificate
from cloister.deployment.enrolment.succession import Succession, read_succession, write_succession
from cloister.errors import BadFileError, UsageError
from cloister.files import write_whole

# A site whose operator is away for a month has another month to load the document.
OVERLAP = timedelta(days=60)
PAPER, NEXT = "succession.json", "ca-next"


@dataclass(frozen=True)
class Rotation:
    """The state of a rotation.

    Attributes:
        paper: The last written succession document.
        switched: Whether its authority is in use.
    """

    paper: Succession
    switched: bool


def rotation_of(folder: ServerFolder) -> Rotation | None:
    """The state of the last rotation; None: there was none.

    Raises:
        BadFileError: The document is damaged.
        NetworkError: It is not signed by this coordinator's authority.
    """
    place = folder.path / PAPER
    if not place.exists():
        return None
    former = folder.path / "ca-former.crt"
    signers = folder.certificate.read_bytes() + (former.read_bytes() if former.exists() else b"")
    paper = read_succession(place, signers)
    return Rotation(paper, paper.authority.encode() == folder.certificate.read_bytes())


def announce(
    folder: ServerFolder, now: datetime, passphrase: bytes | None, overlap: timedelta = OVERLAP
) -> Succession:
    """Makes the next authority and the document that names it; a second call returns the same.

    Args:
        folder: The coordinator's folder.
        now: The present time.
        passphrase: Encrypts the next authority's key; None: the key is not encrypted.
        overlap: How long sites trust both.

    Raises:
        UsageError: The present key is encrypted, and there is no passphrase.
        BadFileError: The authority cannot be read, or something cannot be written.
    """
    last = rotation_of(folder)
    place = folder.path / PAPER
    if last is not None and not last.switched:
        return last.paper
    former = folder.authority
    if last is not None:  # a site that missed it loads both documents, in order
        _keep(folder, place)
    if not (folder.path / f"{NEXT}.key").exists():  # an interrupted announcement continues
        (folder.path / f"{NEXT}.crt").unlink(missing_ok=True)
        create_authority(folder.path, folder.config.name, now, passphrase, NEXT)
    paper = Succession(
        coordinator=folder.config.name,
        authority=(folder.path / f"{NEXT}.crt").read_text(encoding="ascii"),
        former_until=(now + overlap).isoformat(),
    )
    write_succession(place, paper, former)
    return paper


def switch(folder: ServerFolder, running: bool) -> Succession:
    """Puts the announced authority in use and removes the former one's key; continues after a
    crash.

    Args:
        folder: The coordinator's.
        running: Whether its service runs.

    Raises:
        UsageError: No authority was announced, or the coordinator's service runs.
        BadFileError: Something cannot be read or written.
    """
    found = rotation_of(folder)
    if found is None or found.switched:
        raise UsageError(
            f"{folder.path}: no authority was announced; cloister server rotate-ca {folder.path} "
            "makes and announces one"
        )
    if running:
        raise UsageError(
            f"{folder.path}: the service is running and would mix certificates of both; stop it, "
            "switch, and start it again: runs continue by themselves"
        )
    ours, following = (folder.path / "ca"), (folder.path / NEXT)
    try:
        if _at(following, ".key").exists():
            write_whole(folder.path / "ca-former.crt", folder.certificate.read_bytes())
            _at(following, ".key").replace(_at(ours, ".key"))
        _at(following, ".crt").replace(_at(ours, ".crt"))
    except OSError as error:
        raise BadFileError(
            f"{folder.path}: cannot be switched ({error}); correct this and run the command again"
        ) from error
    assert load_certificate(folder.path)
    return found.paper


def _keep(folder: ServerFolder, paper: Path) -> None:
    """Archives the last rotation's document, under the next number."""
    count = len(list(folder.path.glob("succession-*.json")))
    try:
        paper.replace(folder.path / f"succession-{count + 1}.json")
    except OSError as error:
        raise BadFileError(
            f"{paper}: cannot be moved away ({error}); correct this and run the command again"
        ) from error


def _at(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
