"""`cloister site join|start|reload|status|stop`: a site in a federation."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister.cli.arguments import AsJson, SiteToml


def join(
    site: SiteToml,
    paper: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An enrolment document: the invite, then the welcome."),
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The whole fingerprint of the coordinator's authority (CA), as told by telephone."
        ),
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new node key, which must be approved again.")
    ] = False,
) -> None:
    """Answer a coordinator's invite, then take its welcome (its approval).

    These enrolment documents are not secret. Keys are made here and stay here.

    Example: cloister site join site.toml invite.json --fingerprint 1a2b3c4d-…
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.enrolment.documents import kind_of
    from cloister.deployment.site.joining import SiteMembership, take_invite, take_welcome
    from cloister.errors import BadFileError

    file, now = read_site(site), datetime.now(UTC)
    kind = kind_of(paper)
    if kind == "invite":
        request = take_invite(file, paper, fingerprint, now, rotate)
        typer.echo(
            f"{SiteMembership.of(file).request}: send it to the coordinator, and tell them over "
            f"another channel:\n{request.fingerprint}"
        )
    elif kind == "welcome":
        until = take_welcome(file, paper, now)
        typer.echo(
            f"{file.site.name}: may connect until {until[:10]}\nnext: cloister site start {site}"
        )
    else:
        raise BadFileError(f"{paper}: is a {kind}; an invite or a welcome is needed")


def start(site: SiteToml) -> None:
    """Run the site until it is ended (Ctrl-C, SIGTERM): one outbound connection, no open port.

    Example: cloister site start site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.logs import log_json
    from cloister.deployment.site.network_access import in_words
    from cloister.deployment.site.open_ledger import open_ledger
    from cloister.deployment.site.read_apart import read_apart
    from cloister.deployment.site.service import SiteService

    file = read_site(site)
    open_ledger(file)
    service = SiteService(file)
    typer.echo(f"{file.data}: {read_apart(file)}", err=True)
    typer.echo(
        f"{file.site.name}: takes part under {site}; cloister site status {site} shows what left",
        err=True,
    )
    typer.echo(f"{file.site.name}: {in_words(file)}", err=True)
    log_json("site")
    service.run()


def reload(site: SiteToml) -> None:
    """Read the records again; the running site uses them from the next round on.

    Example: cloister site reload site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.agent_folder import AgentFolder
    from cloister.deployment.site.records import read_records
    from cloister.errors import BadFileError

    file = read_site(site)
    folder = AgentFolder.of(file)
    typer.echo(f"{file.data}: {read_records(file)}")
    if folder.running() is None:
        typer.echo(f"{file.site.name}: is not running; cloister site start {site} reads them")
        return
    try:
        folder.ask_reload()
    except OSError as error:
        raise BadFileError(
            f"{folder.own}: cannot be written ({error.strerror}); run this as the user who starts "
            "the service"
        ) from error
    typer.echo(f"{file.site.name}: uses them from its next round on")


def stop(site: SiteToml) -> None:
    """Stop a site's service; a running round is ended and stays spent.

    Example: cloister site stop site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.processes import GRACE
    from cloister.deployment.site.agent_folder import AgentFolder
    from cloister.deployment.site.service import stop_service
    from cloister.errors import CloisterError

    file = read_site(site)
    service = stop_service(AgentFolder.of(file))
    if service is None:
        typer.echo(f"{file.site.name}: is not running")
        return
    deadline = time.monotonic() + GRACE + 3
    while service.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    if service.exists():
        raise CloisterError(f"{file.site.name}: does not stop; read its logs")
    typer.echo(f"{file.site.name}: ended")


def status(site: SiteToml, as_json: AsJson = False) -> None:
    """Show what blocks the site, what it released and spent, and what it refused and why.

    Example: cloister site status site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.status import in_the_way, site_status
    from cloister.deployment.site.study_text import visible

    file = read_site(site)
    facts = site_status(file)
    facts["in_the_way"] = in_the_way(file)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    doing = facts["activity"].get("doing", "nothing yet")
    typer.echo(f"{facts['site']}: {'running, ' + doing if facts['running'] else 'not running'}")
    if facts["in_the_way"]:
        typer.echo(f"  in the way: {visible(facts['in_the_way'])}")
    if facts["activity"].get("leaves_every"):
        typer.echo(f"  updates leave every {facts['activity']['leaves_every']:g} s, and no sooner")
    if facts["activity"].get("device"):
        typer.echo(f"  computes on {visible(facts['activity']['device'])}")
    if facts["activity"].get("strangers"):
        typer.echo(
            f"  {facts['activity']['strangers']} questions that its coordinator did not sign came "
            "since it was started, and were refused without being read; tell the coordinator"
        )
    if facts["connection"]:
        trouble = facts["connection"]
        typer.echo(f"  last trouble with the connection, {trouble['time']}: {trouble['trouble']}")
    if facts["records"].get("changed"):
        typer.echo(
            "  the file of the records changed since it was read, and the old records are in use; "
            f"cloister site reload {site} reads it again"
        )
    for row in facts["waiting"]:
        typer.echo(
            visible(
                f"  waits for approval: study {row['study'][:12]} ({row['name']}): {row['why']}; "
                f"cloister site studies show {site} {row['study'][:12]}"
            )
        )
    for row in facts["decisions"][-5:]:
        done = {"approve": "approved", "reject": "rejected"}[row["kind"]]
        typer.echo(
            f"  {done}: study {row['study'][:12]}, {row['time']}, by {row['login']}"
            + (f" ({row['name']})" if row["name"] else "")
        )
    if facts["decisions_trouble"]:
        typer.echo(f"  no study is accepted:  {visible(facts['decisions_trouble'])}")
    for change in facts["study"].get("changes", ()):
        typer.echo(
            f"  tightened in study {facts['study'].get('study', '')[:12]}: {change['field']}: "
            f"{change['asked']} asked, {change['accepted']} by this site's policy"
            + (f": {change['consequence']}" if change["consequence"] else "")
        )
    if facts["study"].get("silent"):
        typer.echo(
            f"  warning: {facts['study']['silent']} records have no effect in study "
            f"{facts['study'].get('study', '')[:12]}: its task.max_length cuts them before their "
            "first token to learn; ask the coordinator for a larger one"
        )
    budget = facts["budget"]
    typer.echo(f"{budget['in_words']['promise']}.\n{budget['in_words']['used']}.")
    for row in facts["releases"][-10:]:
        typer.echo(
            f"  left: round {row['round']} of study {row['study'][:12]}, {row['bytes']:,} bytes, "
            f"SHA-256 {row['sha256'][:16]}…, {row['time']}"
        )
    for row in facts["adapters"]:
        typer.echo(visible(_delivered(row)))
    if facts["refusals_dropped"]:
        gone = facts["refusals_dropped"]
        typer.echo(
            f"  {gone['count']:,} refusals of {gone['first']} to {gone['last']} are not kept; the "
            "first and the latest ones are, in refusals.jsonl"
        )
    for row in facts["refusals"][-5:]:
        typer.echo(f"  refused: round {row['round']}, {row['time']}: {row['why']}")


def _delivered(row: Mapping[str, Any]) -> str:
    """Formats the line on a delivered adapter; its score is the coordinator's statement."""
    claim = row.get("claim", {})
    score = claim.get("score")
    good = "no score was given" if score is None else f"{claim.get('metric')} {score:.4f}"
    return (
        f"  adapter of study {str(row.get('study', ''))[:12]} ({row.get('name', '')}), received "
        f"{row.get('received', 'at an unknown time')}; on the coordinator's public test set, as "
        f"the coordinator says: {good}; cloister predict {row['folder']} --data FILE"
    )
