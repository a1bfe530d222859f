"""`cloister site studies list|show|approve|reject`: studies that asked, and their approval."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson, SiteToml

if TYPE_CHECKING:
    from cloister.client.site_file import SiteFile
    from cloister.client.terms import StudyTerms
    from cloister.deployment.site.approvals import ApprovalVerdict
    from cloister.deployment.site.decisions import Kind

app = typer.Typer(help="List, approve and reject proposed studies.", no_args_is_help=True)

Digest = Annotated[
    str, typer.Argument(metavar="DIGEST", help="The study's digest, or its first 8 digits or more.")
]
Name = Annotated[str, typer.Option("--name", help="Your name, in addition to your account's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts, with the whole digest.")]


@app.command("list")
def list_(site: SiteToml, as_json: AsJson = False) -> None:
    """List the studies that asked here, and which wait for an approval.

    Example: cloister site studies list site.toml
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.studies import studies_of
    from cloister.deployment.site.study_text import visible

    file = read_site(site)
    found = studies_of(file, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps({"site": file.site.name, "studies": [s.to_json() for s in found]}))
        return
    for one in found:
        said = f"{one.study[:12]}  {one.state:<9} {one.name}, asked {one.asked:%Y-%m-%d %H:%M} UTC"
        typer.echo(visible(f"{said}: {one.why}"))
    if not found:
        typer.echo("no study has asked here yet, or none that the policy accepts")
    elif any(one.state == "waiting" for one in found):
        typer.echo(f"next: cloister site studies show {site} DIGEST")


@app.command("show")
def show(
    site: SiteToml,
    digest: Digest,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Load the base, if it is here, and show the exact bytes."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show in plain words what a study is, what it costs here, and who asks.

    Example: cloister site studies show site.toml 1a2b3c4d
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.studies import shown
    from cloister.deployment.site.study_text import facts_of

    terms, verdict = shown(read_site(site), digest, datetime.now(UTC))
    sizes = {}
    if exact:
        from cloister.deployment.site.opened_site import exact_bytes

        a_round, in_all = exact_bytes(terms)
        sizes = {"bytes_a_round": a_round, "bytes": in_all}
    if as_json:
        state = {"state": verdict.state.value, "why": verdict.why}
        typer.echo(json.dumps({**facts_of(terms), **sizes, **state}))
        return
    _say(terms, verdict)
    if sizes:
        typer.echo(
            f"exactly    {sizes['bytes_a_round']:,} bytes in the longest round, "
            f"{sizes['bytes']:,} in all"
        )
    if verdict.state.value != "approved":
        typer.echo(f"next: cloister site studies approve {site} {terms.study[:12]}, or reject")


@app.command("approve")
def approve(site: SiteToml, digest: Digest, name: Name = "", yes: Yes = False) -> None:
    """Approve a study on the shown terms; asks for a confirmation at the terminal.

    Example: cloister site studies approve site.toml 1a2b3c4d
    """
    from cloister.deployment.site.decisions import Kind

    _decide(site, digest, Kind.APPROVE, name, yes)


@app.command("reject")
def reject(site: SiteToml, digest: Digest, name: Name = "", yes: Yes = False) -> None:
    """Reject a study, even if it was approved or a standing approval covers it.

    Example: cloister site studies reject site.toml 1a2b3c4d
    """
    from cloister.deployment.site.decisions import Kind

    _decide(site, digest, Kind.REJECT, name, yes)


def approve_here(
    digest: Digest,
    site: Annotated[
        Path, typer.Option("--site", metavar="SITE.TOML", help="The site's file.")
    ] = Path("site.toml"),
    name: Name = "",
    yes: Yes = False,
) -> None:
    """Approve a study: `cloister site studies approve`, for the site.toml of this folder.

    Example: cloister site approve 1a2b3c4d
    """
    approve(site, digest, name, yes)


def _say(terms: StudyTerms, verdict: ApprovalVerdict) -> None:
    from cloister.deployment.site.study_text import facts_of, in_words

    for line in in_words(facts_of(terms)):
        typer.echo(line)
    typer.echo(f"stands     {verdict.state.value}: {verdict.why}")


def _decide(site: Path, digest: str, kind: Kind, name: str, yes: bool) -> None:
    import os

    from cloister.client.site_file import read_site
    from cloister.deployment.site.decisions import login_of
    from cloister.deployment.site.studies import decide, shown

    file, now = read_site(site), datetime.now(UTC)
    terms, verdict = shown(file, digest, now)
    _say(terms, verdict)
    login = login_of(os.geteuid())
    _confirm(file, terms, digest, kind, login, yes)
    decision, verdict = decide(terms, kind, name, datetime.now(UTC), login=login)
    done = {"approve": "approved", "reject": "rejected"}[kind.value]
    typer.echo(
        f"{terms.study[:12]}: {done} by {decision.who}; it stands {verdict.state.value}: "
        f"{verdict.why}"
    )


def _confirm(
    file: SiteFile, terms: StudyTerms, digest: str, kind: Kind, login: str, yes: bool
) -> None:
    """Asks the operator to confirm by typing the study's name.

    Raises:
        UsageError: There is no terminal, or another word is typed.
    """
    from cloister.errors import UsageError

    if yes:
        if digest != terms.study:
            raise UsageError(
                f"--yes: the first digits given ({digest}); without a question the whole "
                f"digest of the study is needed: {terms.study}"
            )
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask the question, so nothing was decided: read the text "
            "above, then run this again with the whole digest and --yes"
        )
    asked = f"Type the study's name to {kind.value} it at {file.site.name} as {login}"
    if typer.prompt(asked).strip() != terms.recipe.study.name:
        raise UsageError(
            f"not confirmed ({terms.recipe.study.name} is the name); nothing was decided"
        )
