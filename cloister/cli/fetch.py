"""`cloister fetch`: brings a run that was copied to a URL into a folder, for reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def fetch(
    url: Annotated[str, typer.Argument(metavar="URL", help="What cloister simulate had as --out.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Bring a run from a URL into a new folder of this machine, for reading.

    Every file is checked against the manifest at the URL. The folder is read by all commands as any
    run's; it is marked as a copy, and no study is continued in it.

    Example: cloister fetch s3://bucket/clinics runs/clinics
    """
    from cloister.bounds import shortened
    from cloister.errors import UsageError
    from cloister.names import is_url
    from cloister.simulation.copies.fetching import fetch as fetch_run

    if not is_url(url):
        raise UsageError(
            f"{shortened(url)} given; a URL is needed, for example s3://bucket/run. A folder of "
            "this machine needs no fetching"
        )
    found = fetch_run(
        url,
        folder,
        lambda found: typer.echo(
            f"a run, {found}; fetching {len(found.files)} files, {found.size:,} bytes", err=True
        ),
    )
    if as_json:
        facts = {
            "folder": str(folder),
            "round": found.round,
            "finished": found.is_finished,
            "written": found.written,
            "files": len(found.files),
            "bytes": found.size,
        }
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{folder}: fetched, for reading; cloister evaluate {folder} --data FILE scores it")
