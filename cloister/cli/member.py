"""`cloister member`: manages the sites of a coordinator's federation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.server_authority import DEFAULT, PassphraseFile

app = typer.Typer(help="Invite, approve and revoke sites.", no_args_is_help=True)

Server = Annotated[
    Path,
    typer.Option("--server", envvar="CLOISTER_SERVER", help="The coordinator's folder."),
]
Site = Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")]


@app.command("invite")
def invite(
    site: Site,
    server: Server = DEFAULT,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Absent: SITE.invite.json.")
    ] = None,
    ca_passphrase_file: PassphraseFile = None,
) -> None:
    """Write an invite for a site; it contains nothing secret.

    Example: cloister member invite st-marys --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.members import changing, invited, read_members
    from cloister.deployment.coordinator.rotation import PAPER, rotation_of
    from cloister.deployment.enrolment.documents import Invite, write_invite
    from cloister.deployment.enrolment.passphrase import unlock

    folder = ServerFolder.open(server, partial(unlock, ca_passphrase_file))
    authority = folder.authority
    path = out or Path(f"{site}.invite.json")
    with changing(folder.members) as write:
        members = invited(read_members(folder.members), site, datetime.now(UTC))
        paper = Invite(
            coordinator=folder.config.name,
            site=site,
            address=folder.config.address,
            authority=authority.pem.decode(),
            token=members[site].token,
            expires=members[site].expires,
        )
        write_invite(path, paper, authority)
        write(members)
    typer.echo(
        f"{path}: send it to {site}, and tell them over another channel:\n{paper.fingerprint}"
    )
    following = rotation_of(folder)
    if following is not None and not following.switched:
        typer.echo(
            f"A new authority is announced: also send {folder.path / PAPER}, for cloister site "
            f"trust-ca, and tell its fingerprint:\n{following.paper.fingerprint}"
        )


@app.command("approve")
def approve(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="The site's request.json.")],
    server: Server = DEFAULT,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The request's fingerprint, as the site read it to you over another channel."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Absent: SITE.welcome.json.")
    ] = None,
    ca_passphrase_file: PassphraseFile = None,
) -> None:
    """Approve a site's request to join; writes its welcome document.

    Example: cloister member approve request.json --fingerprint 1a2b3c4d-…
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.members import approved, changing, read_members
    from cloister.deployment.enrolment.authority import compare_fingerprints
    from cloister.deployment.enrolment.coordinator_key import load_coordinator_key, public_key_of
    from cloister.deployment.enrolment.documents import Approval, read_join_request, write_welcome
    from cloister.deployment.enrolment.passphrase import unlock
    from cloister.errors import UsageError

    folder = ServerFolder.open(server, partial(unlock, ca_passphrase_file))
    asked = read_join_request(request)
    if fingerprint is None:
        raise UsageError(
            f"--fingerprint: missing; ask {asked.site} over another channel (telephone) for the "
            f"fingerprint of its request and compare: this one's is {asked.fingerprint}"
        )
    compare_fingerprints(
        fingerprint,
        asked.fingerprint,
        f"{request}: its fingerprint is {asked.fingerprint}, but {fingerprint} was given; it was "
        "changed on its way, or belongs to another site: do not approve it",
    )
    path, authority = out or Path(f"{asked.site}.welcome.json"), folder.authority
    with changing(folder.members) as write:
        members = approved(read_members(folder.members), asked, datetime.now(UTC))
        welcome = Approval(
            coordinator=folder.config.name,
            site=asked.site,
            request=asked.fingerprint,
            expires=members[asked.site].expires,
            coordinator_key=public_key_of(load_coordinator_key(folder.key)),
        )
        write_welcome(path, welcome, authority)
        write(members)
    typer.echo(f"{path}: send it to {asked.site}, which may connect until {welcome.expires[:10]}")


@app.command("revoke")
def revoke(site: Site, server: Server = DEFAULT) -> None:
    """Revoke a site: the coordinator refuses it from now on.

    Example: cloister member revoke st-marys --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.members import changing, read_members, revoked

    folder = ServerFolder.open(server)
    with changing(folder.members) as write:
        write(revoked(read_members(folder.members), site))
    typer.echo(f"{site}: revoked; it is refused from now on")


@app.command("list")
def listed(
    server: Server = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the sites and the state of each.

    Example: cloister member list --server coordinator
    """
    from cloister.deployment.coordinator.folder import ServerFolder
    from cloister.deployment.coordinator.members import read_members

    members = read_members(ServerFolder.open(server).members)
    if as_json:
        rows = [
            {
                "site": site,
                "standing": member.standing,
                "expires": member.expires,
                "public_records": member.public_records,
                "ledger_key": member.ledger_key,
                "request": member.request,
            }
            for site, member in sorted(members.items())
        ]
        typer.echo(json.dumps({"members": rows}))
        return
    for site, member in sorted(members.items()):
        declared = f"{member.public_records:,} declared" if member.public_records else ""
        typer.echo(f"{site:<24}{member.standing:<10}until {member.expires[:10]}  {declared}")
    if not members:
        typer.echo("no members yet; invite one with cloister member invite SITE")
