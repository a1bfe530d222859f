"""Arguments that the commands on a data file share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Records: JSONL, JSON, CSV, TSV, CoNLL (text also as .gz), Parquet or Arrow.",
    ),
]
EncodingName = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="The file's encoding: utf-8, utf-16, gb18030, latin-1, …. Absent: detected and "
        "stated, or refused where it cannot be told.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        help="Between cells: comma, semicolon, tab, bar or a character. Absent: detected and "
        "stated.",
    ),
]
NoQuotes = Annotated[
    bool, typer.Option("--no-quotes", help='Take " in cells for a plain character.')
]
