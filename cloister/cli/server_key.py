"""`cloister server key`: the key that signs the coordinator's questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def key(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", envvar="CLOISTER_SERVER", help="The coordinator's folder."
        ),
    ] = Path("coordinator"),
    out: Annotated[
        Path | None, typer.Option(help="Write the public key into this file, for the sites.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make a new key; every site has to trust it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the public key that sites trust, and its fingerprint; neither is secret.

    Example: cloister server key coordinator --out coordinator.pub
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.status import read_service
    from cloister.deployment.enrolment.coordinator_key import (
        create_coordinator_key,
        key_fingerprint,
        load_coordinator_key,
        public_key_of,
    )
    from cloister.errors import UsageError
    from cloister.files import write_whole

    opened = ServerFolder.open(folder)
    if renew and read_service(opened) is not None:
        raise UsageError(
            f"--renew: {opened.path} is running, and a run keeps the key with which it began: "
            "stop its runs and the service first"
        )
    found = create_coordinator_key(opened.key) if renew else load_coordinator_key(opened.key)
    public = public_key_of(found)
    if out is not None:
        write_whole(out, public.encode() + b"\n")
    if as_json:
        typer.echo(json.dumps({"key": public, "fingerprint": key_fingerprint(public)}))
        return
    typer.echo(told_of(public, folder) if renew else f"{public}\n{key_fingerprint(public)}")


def told_of(public: str, folder: Path) -> str:
    """Returns the instructions for a key that sites do not know yet.

    Args:
        public: The public key.
        folder: The coordinator's folder, as given.
    """
    from cloister.deployment.enrolment.coordinator_key import key_fingerprint

    return (
        f"a key that signs this coordinator's questions was made: {public}\n"
        f"fingerprint: {key_fingerprint(public)}\n"
        "Back it up. A site that joined before answers nothing until it trusts this key: send it, "
        "tell the fingerprint over another channel, and let each site type\n"
        f"cloister site trust site.toml KEY --fingerprint …   (cloister server key {folder} shows "
        "both again; a welcome that is written from now on brings the key along)"
    )
