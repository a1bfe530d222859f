"""`cloister site overlap`: how many of an institution's records are in a public file too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson, SiteToml

Public = Annotated[
    Path, typer.Argument(metavar="PUBLIC", help="A study's public file; columns as in site.toml.")
]


def overlap(site: SiteToml, public: Public, as_json: AsJson = False) -> None:
    """Count your records that are in a public file too, or nearly; for your eyes only.

    Example: cloister site overlap site.toml public.jsonl
    """
    from cloister.client.site_file import read_site
    from cloister.data import public_set
    from cloister.data.load import load
    from cloister.data.source import SITE
    from cloister.deployment.site.records import read_records
    from cloister.tasks.build import record_kind

    file = read_site(site)
    own = read_records(file).records
    kind = record_kind(file.declared.task)
    known = load(str(public), "validation", kind, file.columns, asker=SITE)
    found = public_set.overlap(own, known)
    if as_json:
        counts = {"exact": found.exact, "near": found.near, "records": len(own)}
        typer.echo(json.dumps({"site": file.site.name, "public": str(public), **counts}))
        return
    typer.echo(
        f"{found.count} of your {len(own)} records are in {public} ({len(known)} records) too: "
        f"{found.exact} with the same text, {found.near} nearly. Keep these numbers here: they "
        "tell of your records."
    )
