"""`cloister bundle`: what a machine without internet needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the base model.")] = None,
    source: Annotated[Path, typer.Option(help="Cloister's own sources.")] = Path(),
    index_url: Annotated[
        str | None, typer.Option(help="Where pip looks. Absent: as pip is set up.")
    ] = None,
) -> None:
    """Collect packages with their hashes, and a base model, for a machine without internet.

    Example: cloister bundle offline --model models/MiniLM
    """
    from cloister.provisioning.offline import collect

    extra = ["--index-url", index_url] if index_url else []
    count = collect(out, source, model, extra)
    typer.echo(f"{out}: {count} packages; carry it over and run {out}/install.sh there")
