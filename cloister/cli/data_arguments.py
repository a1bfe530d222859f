"""Arguments that the commands on a data file share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        readable=False,  # the reader checks it, with the exit code of a bad file
        help="Records: JSONL, JSON, CSV, TSV, CoNLL (text also as .gz), Parquet or Arrow.",
    ),
]
EncodingName = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="The file's encoding: utf-8, utf-16, gb18030, latin-1, …. Absent: detected and "
        "stated; an error if it is ambiguous.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        help="Separator of cells: comma, semicolon, tab, bar or a character. Absent: detected and "
        "stated.",
    ),
]
NoQuotes = Annotated[
    bool, typer.Option("--no-quotes", help='Read " in cells as a plain character.')
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text",
        help="Column of texts. Columns that you do not name are guessed, and the guess is printed.",
    ),
]
SecondColumn = Annotated[
    str | None, typer.Option("--text-b", help="Column of the second text, for pairs of texts.")
]
LabelColumn = Annotated[str | None, typer.Option("--label", help="Column of labels.")]
LabelsColumn = Annotated[
    str | None, typer.Option("--labels", help="Column of lists of labels, for texts with several.")
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(help="Separates several labels in a cell of text, such as ';' in a CSV file."),
]
ScoreColumn = Annotated[str | None, typer.Option("--score", help="Column of scores.")]
ItemsColumn = Annotated[
    str | None, typer.Option("--items", help="Column of the ids of what a person had.")
]
TokensColumn = Annotated[str | None, typer.Option("--tokens", help="Column of lists of words.")]
TagsColumn = Annotated[str | None, typer.Option("--tags", help="Column of lists of tags.")]
MessagesColumn = Annotated[str | None, typer.Option("--messages", help="Column of conversations.")]
PersonColumn = Annotated[
    str | None, typer.Option("--person", help="Column of persons: the privacy units.")
]
IdColumn = Annotated[str | None, typer.Option("--id", help="Column of unique identifiers.")]


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows the number of rows read so far on stderr, if that is a terminal.

    Args:
        what: The work, in words.

    Yields:
        A function to call with the number of rows.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from cloister.cli.terminal import Terminal

    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what)
        yield lambda rows: progress.update(task, description=f"{what}: {rows:,} rows")
