"""`cloister site trust`: sets the coordinator's key whose questions a site answers."""

from __future__ import annotations

from typing import Annotated

import typer

from cloister.cli.arguments import SiteToml


def trust(
    site: SiteToml,
    key: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_KEY",
            help="The coordinator's public key, or the file that `cloister server key` wrote.",
        ),
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The key's fingerprint, as the coordinator read it to you over another channel."
        ),
    ] = None,
) -> None:
    """Trust a coordinator's key: from now on the site answers only questions signed with it.

    Needed once at a site that joined before welcome documents had the key, and whenever the
    coordinator makes a new key. A running site uses it from the next question on.

    Example: cloister site trust site.toml coordinator.pub --fingerprint 1a2b3c4d-…
    """
    from cloister.client.site_file import read_site
    from cloister.deployment.site.trusted_key import trust as take

    file = read_site(site)
    taken = take(file, key, fingerprint)
    typer.echo(
        f"{file.site.name}: answers questions that {taken[:16]}… signed for it, and no others"
    )
