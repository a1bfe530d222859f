"""`cloister site trust-ca`: trusts the coordinator's next certificate authority."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import SiteToml


def trust_ca(
    site: SiteToml,
    paper: Annotated[
        Path, typer.Argument(metavar="FILE", help="The coordinator's succession.json.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The whole fingerprint of the new authority (CA), as told by telephone."),
    ] = None,
) -> None:
    """Trust the coordinator's next authority, in addition to the present one until their overlap
    ends.

    Example: cloister site trust-ca site.toml succession.json --fingerprint 1a2b3c4d-…
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.joining import SiteMembership
    from cloister.deployment.site.trust import take_succession

    file, now = read_site(site), datetime.now(UTC)
    taken = take_succession(SiteMembership.of(file).path, paper, fingerprint, now)
    typer.echo(
        f"{file.site.name}: trusts the authority {taken.fingerprint}; "
        + (
            "the former one is not trusted any more"
            if taken.is_over(now)
            else f"the former one until {taken.former_until[:10]}, and then no more"
        )
        + ". A running service uses it within a minute, between two rounds"
    )
