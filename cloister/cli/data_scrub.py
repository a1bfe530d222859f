"""`cloister data scrub`: replaces personal identifiers by placeholders, in a new file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import DataFile, EncodingName, NoQuotes, Separator

if TYPE_CHECKING:
    from cloister.data.scrub.files import ScrubReport


def scrub(
    file: DataFile,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file: .jsonl, .csv or .parquet.")
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of texts; may be repeated. Absent: text, tokens, messages, prompt, "
            "chosen and rejected. All others are copied unchanged."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of persons: an identifier gets the same placeholder in all of a person's "
            "rows. Absent: placeholders are numbered in each row.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="Type to replace, such as PHONE; may be repeated. Absent: every type.",
        ),
    ] = None,
    marked: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="JSONL of texts in which you marked the identifiers (text, spans with start, end "
            "and type); recall and precision by type are measured on it.",
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Find persons' names too, with this installed spaCy model (extra: names).",
        ),
    ] = None,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Replace personal identifiers by placeholders such as [PHONE_1], in a new file.

    Found by rules and check digits: payment cards, IBANs, Chinese resident ids, US social security
    numbers, telephone numbers, mail, web and network addresses, dates, and numbers after words such
    as MRN or 病历号. This is not a guarantee: identifiers without a rule stay. A log is written
    beside the new file. Nothing leaves this machine.

    Example: cloister data scrub notes.csv --out scrubbed.csv --unit patient_id
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.detected import detect_form
    from cloister.data.scrub.files import scrub_file

    finder = None
    if names is not None:
        from cloister.data.scrub.person_names import name_finder

        finder = name_finder(names)
    with row_progress("scrubbed") as progress:
        report = scrub_file(
            detect_form(file, encoding, separator, quotes=not no_quotes),
            out,
            columns=column or (),
            unit=unit,
            types=kind or (),
            marked=marked,
            names=finder,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    _print(report, out)


def _print(report: ScrubReport, out: Path) -> None:
    from rich.table import Table

    from cloister.cli.terminal import Terminal

    console = Terminal()
    console.print(f"{report.touched} of {report.rows} rows changed; written to {out}")
    console.print(f"columns scrubbed: {', '.join(report.scrubbed)}")
    if report.copied:
        console.print(f"columns copied unchanged: {', '.join(report.copied)}")
    table = Table(box=None, header_style="bold")
    headings = ["type", "replaced", *(["marked", "recall", "precision"] * bool(report.marked))]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "type" else "right")
    for kind in dict.fromkeys([*report.found, *report.marked]):
        cells = [kind, str(report.found.get(kind, 0))]
        if kind in report.marked:
            one = report.marked[kind].to_json()
            shares = ("–" if one[k] is None else f"{one[k]:.2f}" for k in ("recall", "precision"))
            cells += [str(one["marked"]), *shares]
        table.add_row(*cells)
    console.print(table)
    console.print(
        "Identifiers without a rule stay in the texts; differential privacy covers them too."
    )
