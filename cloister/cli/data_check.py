"""`cloister data check`: what a file of records holds, and what looks wrong in it."""

from __future__ import annotations

import json

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import DataFile, EncodingName, NoQuotes, Separator


def check(
    file: DataFile,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Show a file's columns and what they hold.

    Example: cloister data check notes.csv
    """
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.data.columns import Columns
    from cloister.data.detected import detect_form

    found = detect_form(file, encoding, separator, quotes=not no_quotes)
    columns = Columns()
    for number, row in found.rows():
        columns.add(row, f"{file.name}, row {number}")
    if as_json:
        typer.echo(
            json.dumps(
                {"file": found.to_json(), "rows": columns.rows, "columns": columns.to_json()}
            )
        )
        return
    table = Table(box=None, header_style="bold")
    for heading in ("column", "holds", "missing"):
        table.add_column(heading, justify="right" if heading == "missing" else "left")
    for column in columns.to_json():
        held = ", ".join(f"{kind} {count}" for kind, count in column["kinds"].items())
        table.add_row(column["name"], held, str(column["missing"]))
    console = Terminal()
    console.print(f"{file.name}: {found}", soft_wrap=True)
    console.print(f"{columns.rows} rows")
    console.print(table)
