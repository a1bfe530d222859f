"""Defines the arguments that the reports on a finished model share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

FinishedRun = Annotated[
    Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")
]
BaseFolder = Annotated[
    str | None,
    typer.Option("--base", help="The base model's folder here. Absent: as the adapter names it."),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="RUN",
        help="Another run of the same task, such as one without privacy.",
    ),
]
SiteFileOf = Annotated[
    Path | None,
    typer.Option(
        "--site",
        help="At a site: its site.toml, whose private records the inputs may be. Needed for an "
        "adapter that a study delivered.",
    ),
]


def saying() -> Callable[[str], None]:
    """Returns a function that prints the name of each stage on stderr."""
    return lambda stage: typer.echo(f"… {stage}", err=True)
