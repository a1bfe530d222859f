"""`cloister server`: makes, runs and shows a coordinator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli import server_authority, server_key
from cloister.cli.server_authority import DEFAULT, Folder, PassphraseFile

app = typer.Typer(help="Make, start and check a coordinator.", no_args_is_help=True)
app.command("renew")(server_authority.renew)
app.command("lock-ca")(server_authority.lock_ca)
app.command("unlock-ca")(server_authority.unlock_ca)
app.command("rotate-ca")(server_authority.rotate_ca)
app.command("key")(server_key.key)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("init")
def init(
    folder: Folder = DEFAULT,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address at which sites reach the coordinator.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="The coordinator's name, as sites see it.")
    ] = "coordinator",
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address to listen on. Absent: all addresses.")
    ] = "",
    encrypt_ca: Annotated[
        bool,
        typer.Option(
            "--encrypt-ca",
            help="Encrypt the key of the certificate authority; asks for a passphrase.",
        ),
    ] = False,
    ca_passphrase_file: PassphraseFile = None,
) -> None:
    """Make a coordinator: its certificate authority (CA), its certificate and its folder.

    --encrypt-ca, or a named file with a passphrase, encrypts the authority's key.

    Example: cloister server init coordinator --address fed.example.org:9443
    """
    from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
    from cloister.deployment.enrolment.authority import fingerprint
    from cloister.deployment.enrolment.passphrase import new_passphrase, passphrase_file
    from cloister.errors import UsageError

    if not address:
        raise UsageError(
            "--address: missing; give the host:port at which sites reach this coordinator"
        )
    config = ServerConfig(name=name, address=address, listen=listen)
    encrypted = encrypt_ca or passphrase_file(ca_passphrase_file) is not None
    passphrase = new_passphrase(ca_passphrase_file) if encrypted else None
    made = ServerFolder.create(folder, config, datetime.now(UTC), passphrase)
    typer.echo(
        f"{made.path}: a coordinator named {name}, reached at {address}.\n"
        f"fingerprint of its authority: {fingerprint(made.certificate.read_bytes())}\n"
        "Tell it to every site over another channel than the invite; back up ca.key"
        + (
            ", and its passphrase in another place.\n"
            if encrypted
            else f".\nca.key is not encrypted: cloister server lock-ca {folder} encrypts it.\n"
        )
        + f"next: cloister server start {folder}"
    )


@app.command("start")
def start(folder: Folder = DEFAULT, ca_passphrase_file: PassphraseFile = None) -> None:
    """Run the coordinator until it is ended (Ctrl-C, SIGTERM).

    An encrypted authority is opened only to renew certificates, with a passphrase file or a systemd
    credential. Without these, run `cloister server renew` by hand once a quarter.

    Example: cloister server start coordinator
    """
    from functools import partial

    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.loopback import protection
    from cloister.deployment.coordinator.service import CoordinatorService
    from cloister.deployment.enrolment.passphrase import unlock
    from cloister.deployment.logs import log_json

    opened = ServerFolder.open(folder, partial(unlock, ca_passphrase_file, ask=False))
    made = opened.complete()
    if made is not None:
        typer.echo(server_key.told_of(made, folder), err=True)
    service = CoordinatorService(opened)
    host, port = opened.config.place
    typer.echo(f"{opened.config.name}: listening at {host}:{port}; logs in {opened.logs}", err=True)
    typer.echo(f"{opened.config.name}: {protection(opened)}", err=True)
    log_json("server")
    service.run()


@app.command("doctor")
def doctor(folder: Folder = DEFAULT, as_json: AsJson = False) -> None:
    """Check that only the service's user reaches the SuperLink; best run as root.

    Example: cloister server doctor coordinator
    """
    from cloister.deployment.coordinator.doctor import CheckOutcome, examine
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.errors import UnhealthyError

    opened = ServerFolder.open(folder)
    findings = list(examine(opened))
    if as_json:
        rows = [
            {"check": f.name, "verdict": f.verdict, "detail": f.detail, "remedy": f.remedy}
            for f in findings
        ]
        typer.echo(json.dumps({"name": opened.config.name, "checks": rows}))
    else:
        for found in findings:
            typer.echo(f"{found.verdict:<9}{found.name:<20}{found.detail}")
            if found.remedy:
                typer.echo(f"         → {found.remedy}")
    failed = [found.name for found in findings if found.verdict is CheckOutcome.FAIL]
    if failed:
        raise UnhealthyError(f"{', '.join(failed)}: correct these before the next study")


@app.command("backup")
def backup(
    folder: Folder = DEFAULT,
    out: Annotated[Path, typer.Option(help="File to write; keep it as safe as keys.")] = Path(
        "coordinator.tar.gz"
    ),
) -> None:
    """Write authority, members and runs into one file.

    Example: cloister server backup coordinator --out coordinator.tar.gz
    """
    from cloister.deployment.coordinator.backup import back_up
    from cloister.deployment.coordinator.folder import ServerFolder

    count = back_up(ServerFolder.open(folder), out)
    typer.echo(f"{out}: {count} files, keys among them")


@app.command("restore")
def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="The file that `backup` wrote.")],
    folder: Folder = DEFAULT,
) -> None:
    """Make a coordinator's folder from its backup; sites need no change.

    Example: cloister server restore coordinator.tar.gz coordinator
    """
    from cloister.deployment.coordinator.backup import restore as restored

    made = restored(backup, folder)
    typer.echo(
        f"{made.path}: {made.config.name} is restored; next:  cloister server start {folder}"
    )


@app.command("status")
def status(folder: Folder = DEFAULT, as_json: AsJson = False) -> None:
    """Show the service, its members and its runs.

    Example: cloister server status coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.status import status_of

    facts = status_of(ServerFolder.open(folder), datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    running = facts["running"]
    typer.echo(f"{facts['name']} at {facts['address']}: {'running' if running else 'not running'}")
    for child in facts["processes"]:
        state = "runs" if child["pid"] else f"ended with {child['exit_code']}"
        typer.echo(f"  {child['name']:<12}{state}, started {child['starts']} times")
    typer.echo(f"  certificate valid for {facts['certificate_days']} more days")
    authority = facts["authority"]
    typer.echo(f"  authority's key: {authority['key']}{server_authority.NOTES[authority['key']]}")
    if authority["next"]:
        typer.echo(
            f"  authority {authority['next']}\n    is announced but not in use yet: cloister "
            f"server rotate-ca {folder} --switch, before {authority['former_until'][:10]}"
        )
    for site in facts["sites"]:
        seen = f"seen {site['seen']}" if site["seen"] else "not seen yet"
        typer.echo(f"  {site['site']:<20}{site['standing']:<10}{seen}")
    for run in facts["runs"]:
        typer.echo(f"  run {run['name']:<24}{run['standing']}, round {run['round']}")
