"""`cloister new`: a commented recipe, from the columns of a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import UsageError


class TaskName(StrEnum):
    """Kinds of task."""

    SEQUENCE = "sequence-classification"
    TOKEN = "token-classification"
    CAUSAL = "causal-lm"


def new(
    task: Annotated[
        TaskName | None, typer.Argument(help="What is learnt. Absent: as --data's columns say.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Training records: a data file of any format.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The recipe's file, a new one. Absent: DATA.toml.")
    ] = None,
) -> None:
    """Write a commented recipe to begin with.

    Columns of texts, labels, words, tags, conversations, persons and sites are guessed from the
    file's names and first rows. The recipe says what was guessed; correct it, name a public test
    file in it, and run it. Nothing is written over.

    Example: cloister new --data notes.csv --out study.toml
    """
    from cloister.data.guess import guess
    from cloister.recipe.template import kind_of_task, new_recipe
    from cloister.tasks.registry import BUILT_IN

    if task is None and data is None:
        kinds = ", ".join(kind.value for kind in TaskName)
        raise UsageError(f"a task or --data is needed; tasks: {kinds}")
    found = (
        guess(data, BUILT_IN[task.value].records if task else None) if data is not None else None
    )
    kind = task.value if task is not None else kind_of_task(found) if found is not None else None
    if kind is None or (found is not None and found.kind is None):
        columns = ", ".join(found.names[:12]) if found is not None else ""
        raise UsageError(
            f"{data}: its columns ({columns}) fit no task{f' {kind}' if kind else ''}; a text and "
            "a label, words and tags (lists), or messages (role, content) are needed: rename or "
            "convert them, or give the task alone and fill the recipe in"
        )
    target = out or Path(f"{data.stem if data is not None else kind}.toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(new_recipe(kind, data, found))
    except FileExistsError:
        raise UsageError(
            f"{target}: exists already and is not written over; give another --out"
        ) from None
    typer.echo(f"{target} written; name a public test file in it, then: cloister simulate {target}")
