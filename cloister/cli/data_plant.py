"""`cloister data plant`: adds invented records with secrets, to measure memorization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    LabelColumn,
    MessagesColumn,
    NoQuotes,
    PersonColumn,
    Separator,
    TextColumn,
)


def plant(
    file: DataFile,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A new file of the records and the planted canaries: .jsonl, .csv or .parquet.",
        ),
    ],
    secrets: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A new file of all canaries with their secrets: .json."),
    ],
    count: Annotated[
        int, typer.Option(help="Canaries that are drawn; a fair coin plants each of them.")
    ] = 64,
    copies: Annotated[
        int, typer.Option(help="Rows of each planted canary, all of one person and site.")
    ] = 1,
    text: TextColumn = None,
    label: LabelColumn = None,
    messages: MessagesColumn = None,
    person: PersonColumn = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Column of sites: a canary belongs to one.")
    ] = None,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Plant canaries, invented records with a secret number, to measure memorization.

    Each secret is one of 10⁹ numbers, drawn from the system's entropy. Train a study of its own on
    the new file: the canaries are learnt like records. `cloister model memorize` then measures how
    far the model prefers the secrets. A log is written beside the new file.

    Example: cloister data plant train.jsonl --out planted.jsonl --secrets canaries.json
    """
    from cloister.data.canaries import plant as plant_canaries
    from cloister.data.detected import detect_form

    columns = {"text": text, "label": label, "messages": messages, "person": person, "site": site}
    source = detect_form(file, encoding, separator, quotes=not no_quotes)
    made = plant_canaries(source, out, secrets, count=count, copies=copies, columns=columns)
    if as_json:
        told = {"canaries": count, "planted": len(made.planted), "copies": copies}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{len(made.planted)} of {count} canaries planted; written to {out}")
    typer.echo(f"secrets of all {count}: {secrets} (do not give it to the trainers)", err=True)
