"""`cloister data sql`: writes the rows of a query as a file of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson


def sql(
    dsn: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE, without a password.",
        ),
    ],
    query: Annotated[
        str,
        typer.Option(
            help="One statement that only reads and names the columns: SELECT note AS text, …. "
            "@FILE: read from a file."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file: .jsonl, .csv or .parquet.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Its first line is the password. Absent: CLOISTER_SQL_PASSWORD of the "
            "environment, or what PostgreSQL's own client finds.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a query on SQLite or PostgreSQL as records.

    The connection cannot change the database: PostgreSQL runs the query in a read-only transaction,
    SQLite on a file that is opened for reading. Rows are read a hundred at a time, so memory does
    not grow with their number. A log is written beside the new file, with the query and without the
    password. Nothing except the query leaves this machine.

    Example: cloister data sql --dsn sqlite:///clinic.db --query @notes.sql --out notes.jsonl
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.sql.run import sql_file
    from cloister.names import counted

    with row_progress("read") as progress:
        report = sql_file(dsn, _query(query), out, password_file=password_file, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    typer.echo(f"{counted(report.rows, 'row')} written to {out}: {', '.join(report.columns)}")


def _query(given: str) -> str:
    """Returns the given query, or the text of the file named by `@FILE`."""
    if not given.startswith("@"):
        return given
    from cloister.data.sql.statement import MOST_CHARACTERS
    from cloister.errors import BadFileError

    try:
        with Path(given[1:]).open(encoding="utf-8") as file:
            return file.read(
                MOST_CHARACTERS + 1
            )  # one more than allowed, so that a longer query is refused
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"--query {given[:200]}: cannot be read as UTF-8; correct the path or the file"
        ) from error
