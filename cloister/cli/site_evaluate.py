"""`cloister site evaluate`: scores an adapter on the records that an institution held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson, SiteToml
from cloister.cli.model_arguments import BaseFolder, saying

Adapter = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER",
        help="A finished study of this site (name, or first digits of its digest), or a folder.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(help="A new folder for index.html and scores.json, below that of SITE.TOML."),
]


def evaluate(
    site: SiteToml, adapter: Adapter, out: Out, base: BaseFolder = None, as_json: AsJson = False
) -> None:
    """Score an adapter on your own held-out records (site.held_out_share); for your eyes only.

    Example: cloister site evaluate site.toml clinics --out scores
    """
    from cloister.trust.held_out.writing import evaluate_site

    done = evaluate_site(site, adapter, out, base=base, on_stage=saying())
    if as_json:
        typer.echo(json.dumps(done.document, ensure_ascii=False))
        return
    from cloister.cli.terminal import Terminal

    console = Terminal()
    for name, one in done.found.scores.items():
        line = f"{name:12} {one.value:.4f}  ({one.low:.4f} to {one.high:.4f}, 95 %)"
        console.print(line, highlight=False)
    for caution in done.cautions:
        typer.echo(f"caution: {caution}", err=True)
    typer.echo(str(done.folder / "index.html"))
