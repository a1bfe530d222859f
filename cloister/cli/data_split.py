"""`cloister data split`: splits a file into training, validation and test files."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    LabelSeparator,
    NoQuotes,
    Separator,
)


class SplitBy(StrEnum):
    """The rule that decides which file a unit goes to."""

    UNIT = "unit"
    LABEL = "label"
    TIME = "time"
    SITE = "site"


class Written(StrEnum):
    """Formats of the written files."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def split(
    file: DataFile,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder.")],
    by: Annotated[
        SplitBy,
        typer.Option(
            help="unit: by a hash of each unit. label: stratified, by each label of a list or of a "
            "cell with --label-separator, which couples units. time: from --test-from on. site: "
            "whole sites (--test-site)."
        ),
    ] = SplitBy.UNIT,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of persons: no person is on two sides. Absent: each record is a unit.",
        ),
    ] = None,
    test: Annotated[float, typer.Option(help="Share of units for test.")] = 0.2,
    validation: Annotated[float, typer.Option(help="Share of units for validation.")] = 0.0,
    salt: Annotated[str, typer.Option(help="Another salt gives another split.")] = "",
    column: Annotated[
        str | None,
        typer.Option(help="Column of labels, times or sites. Absent: label, time or site."),
    ] = None,
    label_separator: LabelSeparator = None,
    test_from: Annotated[
        str | None, typer.Option(metavar="TIME", help="First date, time or number for test.")
    ] = None,
    validation_from: Annotated[
        str | None, typer.Option(metavar="TIME", help="First date, time or number for validation.")
    ] = None,
    test_site: Annotated[
        list[str] | None, typer.Option(help="A site for test; may be repeated.")
    ] = None,
    validation_site: Annotated[
        list[str] | None, typer.Option(help="A site for validation; may be repeated.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="For cross-validation: K files, fold-1 to fold-K, each unit in one by its hash.",
        ),
    ] = None,
    form: Annotated[
        Written | None,
        typer.Option("--format", help="Format of the new files. Absent: FILE's, or jsonl."),
    ] = None,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Split a file into train, validation and test files, with no unit on two sides.

    A unit's side depends on the unit alone, except with --by label: then it may depend on the
    labels of others, the log states couples_units, and ε is about the units of the written files. A
    log is written beside each file. Nothing leaves this machine.

    Example: cloister data split notes.csv --out parts --unit patient_id --validation 0.1
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.detected import detect_form
    from cloister.data.split.files import SplitPlan, split_file
    from cloister.data.split.sides import Shares

    plan = SplitPlan(
        by=by.value,
        unit=unit,
        shares=Shares(validation=validation, test=test, salt=salt),
        column=column,
        test_from=test_from,
        validation_from=validation_from,
        test_sites=test_site or (),
        validation_sites=validation_site or (),
        folds=folds,
        label_separator=label_separator,
    )
    source = detect_form(file, encoding, separator, quotes=not no_quotes)
    with row_progress("split") as progress:
        report = split_file(
            source,
            out,
            plan,
            ending=None if form is None else f".{form.value}",
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    for side, rows in report.rows.items():
        typer.echo(f"{side}: {rows} rows, {report.units[side]} units")
    if report.couples_units:
        typer.echo("stratified: couples units, so ε is about the units of the written files")
