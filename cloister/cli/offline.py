"""`cloister bundle`: collects what a machine without internet needs."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.server_authority import DEFAULT, PassphraseFile


def bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the base model.")] = None,
    signer: Annotated[
        Path,
        typer.Option(help="Folder with the signing key: the coordinator's, or your own."),
    ] = DEFAULT,
    new_signer: Annotated[
        bool, typer.Option("--new-signer", help="First make your own key in that folder.")
    ] = False,
    source: Annotated[Path, typer.Option(help="Cloister's own sources.")] = Path(),
    lock: Annotated[
        str | None,
        typer.Option(help="Lock file: cpu or cuda. Absent: that of the torch installed here."),
    ] = None,
    index_url: Annotated[
        str | None, typer.Option(help="pip's package index. Absent: pip's own setting.")
    ] = None,
    ca_passphrase_file: PassphraseFile = None,
) -> None:
    """Collect packages and a base model for a machine without internet, and sign them.

    Example: cloister bundle offline --model models/MiniLM --signer coordinator
    """
    from cloister.deployment.enrolment.authority import (
        create_authority,
        fingerprint,
        load_authority,
    )
    from cloister.deployment.enrolment.offline import collect, locked_build
    from cloister.deployment.enrolment.passphrase import new_passphrase, passphrase_file, unlock
    from cloister.errors import BadFileError, UsageError

    if lock not in (None, "cpu", "cuda"):
        raise UsageError(f"--lock: {lock!r} given; cpu or cuda is needed")
    now = datetime.now(UTC)
    if new_signer:
        encrypted = passphrase_file(ca_passphrase_file) is not None
        passphrase = new_passphrase(ca_passphrase_file) if encrypted else None
        try:
            signer.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadFileError(f"{signer}: cannot be written ({error}); name another") from error
        key = create_authority(signer, f"{signer.absolute().name} bundles", now, passphrase)
    elif not (signer / "ca.crt").exists():
        raise UsageError(
            f"--signer: {signer} has no signing key; name the coordinator's folder, or make "
            "your own key there with --new-signer"
        )
    else:
        key = load_authority(signer, partial(unlock, ca_passphrase_file))
    extra = ["--index-url", index_url] if index_url else []
    count = collect(out, source, model, key, now, lock or locked_build(), extra)
    typer.echo(
        f"{out}: {count} packages, signed. Copy it to the other machine, and tell the "
        f"receiver over another channel:\n{fingerprint(key.pem)}\n"
        f"There: sh {out.name}/install.sh FINGERPRINT VENV"
    )
