"""`cloister data sequences` and `data items`: write people's items and the public list of items."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson

Encoding = Annotated[
    str | None, typer.Option("--encoding", help="The file's encoding. Absent: the form's.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator", help="Separator of cells: ::, tab, or a character. Absent: the form's."
    ),
]


class FormName(StrEnum):
    """Forms of files with interactions of people and items."""

    TABLE = "table"
    MOVIELENS = "movielens"
    MIND = "mind"


Form = Annotated[
    FormName,
    typer.Option(
        help="table: a data file with a header (CSV, JSONL, Parquet, …). movielens: lines with :: "
        "between cells (.dat). mind: tabs, without a header (.tsv)."
    ),
]


def sequences(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", readable=False, help="A file of interactions (see --form)."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file: .jsonl or .parquet.")],
    form: Form = FormName.TABLE,
    person: Annotated[
        str | None, typer.Option(help="Column of persons. Absent: guessed by its name.")
    ] = None,
    item: Annotated[
        str | None, typer.Option(help="Column of items. Absent: guessed by its name.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of times. Absent: guessed by its name.")
    ] = None,
    rating: Annotated[
        str | None, typer.Option(help="Column of ratings. Absent: guessed by its name.")
    ] = None,
    least_rating: Annotated[
        float | None,
        typer.Option(help="Leave out rows with a lower rating. Absent: keep all rows."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="The public file of items; an item that is not in it is an error."
        ),
    ] = None,
    known_only: Annotated[
        bool, typer.Option("--known-only", help="Leave out items that are not in --items.")
    ] = False,
    fewest: Annotated[
        int, typer.Option(min=2, help="Leave out people who had fewer different items.")
    ] = 2,
    separator: Separator = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Write one record for each person, with the person's items in order of time.

    The records are for recommendation. A row of FILE is one item that one person had (for MIND, one
    impression). A person's record depends on that person's rows only, so no units are coupled. A
    log is written beside the new file. Nothing leaves this machine.

    Example: cloister data sequences ratings.csv --items items.jsonl --out people.jsonl
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.interactions.interaction_row import SequenceOptions
    from cloister.data.interactions.run import sequence_file
    from cloister.names import counted

    options = SequenceOptions(
        form=form.value,
        person=person,
        item=item,
        time=time,
        rating=rating,
        least_rating=least_rating,
        items=None if items is None else str(items),
        known_only=known_only,
        fewest=fewest,
        separator=separator,
        encoding=encoding,
    )
    with row_progress("read") as progress:
        report = sequence_file(file, out, options, progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    typer.echo(f"{counted(report.persons, 'person')} of {counted(report.rows, 'row')}: {out}")
    left = {
        "people with too few different items": report.too_few,
        "interactions that are rated lower": report.low,
        "interactions with an item that is not public": report.unknown,
    }
    for what, count in left.items():
        if count:
            typer.echo(f"left out: {count} {what}")


def items(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", readable=False, help="A file of PUBLIC items (see --form)."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file: .jsonl, .csv or .parquet.")
    ],
    form: Form = FormName.TABLE,
    item: Annotated[
        str | None, typer.Option(help="Column of ids. Absent: guessed by its name.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of the text; may be repeated. Absent: title, genres, …"),
    ] = None,
    separator: Separator = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Write the public file of items that a study of recommendation names.

    The file has the columns item and text. Every party of the study needs an identical copy: the
    recipe states its hash.

    Example: cloister data items movies.dat --form movielens --out items.jsonl
    """
    from cloister.data.interactions.items import ItemOptions, item_file
    from cloister.data.public_file import file_sha256

    options = ItemOptions(
        form=form.value,
        item=item,
        texts=tuple(text or ()),
        separator=separator,
        encoding=encoding,
    )
    count = item_file(file, out, options)
    digest = file_sha256(out, "--out")
    if as_json:
        typer.echo(json.dumps({"items": count, "sha256": digest}))
        return
    typer.echo(f"{count} items: {out}, SHA-256 {digest}")
