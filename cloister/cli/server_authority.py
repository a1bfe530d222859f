"""`cloister server renew|lock-ca|unlock-ca|rotate-ca`: the coordinator's certificate authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", envvar="CLOISTER_SERVER", help="The coordinator's folder."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the passphrase of the authority's key. Absent: "
        "$CLOISTER_CA_PASSPHRASE_FILE, a systemd credential, or the terminal.",
    ),
]
DEFAULT = Path("coordinator")
# Notes of `status` on the state of the key.
NOTES = {
    "in the clear": "; cloister server lock-ca encrypts it",
    "encrypted": "",
    "not here": "; restore the key or its backup to sign",
}


def renew(folder: Folder = DEFAULT, ca_passphrase_file: PassphraseFile = None) -> None:
    """Renew the endpoint's certificate if it is due; a running service loads it by itself.

    Example: cloister server renew coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.enrolment.authority import days_left
    from cloister.deployment.enrolment.passphrase import unlock

    now = datetime.now(UTC)
    opened = ServerFolder.open(folder, partial(unlock, ca_passphrase_file))
    issued = opened.renew(now)
    days = days_left((opened.path / "endpoint.crt").read_bytes(), now)
    typer.echo(
        f"{opened.path}: {'renewed' if issued else 'nothing was due'}; the endpoint's certificate "
        f"is valid for {days} more days"
    )


def lock_ca(folder: Folder = DEFAULT, ca_passphrase_file: PassphraseFile = None) -> None:
    """Encrypt the authority's unencrypted key with a passphrase.

    Example: cloister server lock-ca coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.enrolment.authority_key import KeyState, key_state, rewrite_key
    from cloister.deployment.enrolment.passphrase import new_passphrase
    from cloister.errors import UsageError

    opened = ServerFolder.open(folder)
    if key_state(opened.path) is KeyState.SEALED:
        raise UsageError(
            f"{opened.path}: the authority's key is encrypted already; for another passphrase: "
            f"cloister server unlock-ca {folder} first"
        )
    authority = opened.authority
    rewrite_key(opened.path, authority, new_passphrase(ca_passphrase_file))
    typer.echo(
        f"{opened.path}: the authority's key is encrypted. Earlier backups have unencrypted "
        "copies: write a new backup and destroy those. Keep the passphrase in another place; "
        "without it the key is lost"
    )


def unlock_ca(folder: Folder = DEFAULT, ca_passphrase_file: PassphraseFile = None) -> None:
    """Decrypt the authority's key again.

    Example: cloister server unlock-ca coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.enrolment.authority_key import KeyState, key_state, rewrite_key
    from cloister.deployment.enrolment.passphrase import unlock
    from cloister.errors import UsageError

    opened = ServerFolder.open(folder, partial(unlock, ca_passphrase_file))
    if key_state(opened.path) is KeyState.PLAIN:
        raise UsageError(f"{opened.path}: the authority's key is not encrypted; nothing to do")
    rewrite_key(opened.path, opened.authority, None)
    typer.echo(f"{opened.path}: the authority's key is not encrypted any more")


def rotate_ca(
    folder: Folder = DEFAULT,
    switch: Annotated[
        bool, typer.Option("--switch", help="Start to use the announced authority.")
    ] = False,
    overlap_days: Annotated[
        int, typer.Option(min=1, max=365, help="How long sites trust both authorities.")
    ] = 60,
    ca_passphrase_file: PassphraseFile = None,
) -> None:
    """Make and announce a new authority; with --switch, start to use it.

    Between the two steps every site loads the succession document: cloister site trust-ca.

    Example: cloister server rotate-ca coordinator
    """
    from cloister.deployment.coordinator import rotation
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.members import connecting, read_members
    from cloister.deployment.coordinator.status import read_service
    from cloister.deployment.enrolment.authority_key import KeyState, key_state
    from cloister.deployment.enrolment.passphrase import unlock

    now = datetime.now(UTC)
    opened = ServerFolder.open(folder, partial(unlock, ca_passphrase_file))
    passphrase = opened.passphrase() if key_state(opened.path) is KeyState.SEALED else None
    if passphrase is not None:  # asked once, for both keys
        opened = ServerFolder.open(folder, lambda: passphrase)
    if switch:
        paper = rotation.switch(opened, running=read_service(opened) is not None)
        opened.renew(now)
        typer.echo(
            f"{opened.path}: the authority with the fingerprint {paper.fingerprint} is in use, "
            "and the former one's key is removed from here. A site that has not accepted "
            f"{opened.path / rotation.PAPER} yet can connect once it has. Write a new backup.\n"
            f"next: cloister server start {folder}"
        )
        return
    paper = rotation.announce(opened, now, passphrase, timedelta(days=overlap_days))
    sites = ", ".join(sorted(connecting(read_members(opened.members), now))) or "nobody yet"
    typer.echo(
        f"{opened.path / rotation.PAPER}: send it to every site ({sites}), and tell them over "
        f"another channel:\n{paper.fingerprint}\n"
        "Each accepts it with cloister site trust-ca. When all have, and before "
        f"{paper.former_until[:10]}: stop the service, cloister server rotate-ca {folder} "
        "--switch, start it again"
    )
