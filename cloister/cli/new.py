"""`cloister new`: writes a commented recipe from the columns of a file."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.data.guess import Guess

# Columns of a file that a message lists; more would fill the terminal.
MOST_SHOWN = 12
# What a task needs beside records, which no file of records tells.
PUBLIC_FILES = {
    "retrieval": "the public passages (task.passages: columns id and text)",
    "recommendation": "the public items (task.items: columns item and text)",
}
# Roles of columns that no score needs.
_NOT_SCORED = ("person", "site")


class TaskName(StrEnum):
    """The kinds of task for which `cloister new` writes a recipe."""

    SEQUENCE = "sequence-classification"
    TOKEN = "token-classification"
    PAIRS = "text-pairs"
    CAUSAL = "causal-lm"
    MULTI = "multi-label-classification"
    SCORING = "scoring"
    RETRIEVAL = "retrieval"
    RECOMMENDATION = "recommendation"


def new(
    task: Annotated[
        TaskName | None,
        typer.Argument(help="The kind of task. Absent: guessed from --data's columns."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Training records: a data file of any format.")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="PUBLIC test records, in a file with the same columns; scores on them are "
            "published. Absent: the recipe asks for one."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The recipe's file, a new one. Absent: DATA.toml.")
    ] = None,
) -> None:
    """Write a commented recipe to begin with.

    Columns of texts, pairs, labels, scores, words, tags, items, conversations, persons and sites
    are guessed from the file's names and first rows. The guess is printed and written to the
    recipe; correct it there, then run the recipe. An existing file is never overwritten.

    Example: cloister new --data notes.csv --test public.csv --out study.toml
    """
    from cloister.data.guess import guess
    from cloister.data.outputs import check_place
    from cloister.files import why_no_file
    from cloister.recipe.commented_recipe import kind_of_task, new_recipe
    from cloister.tasks.registry import BUILT_IN

    if task is None and data is None:
        kinds = ", ".join(kind.value for kind in TaskName)
        raise UsageError(f"a task or --data is needed; tasks: {kinds}")
    target = out or Path(f"{data.stem if data is not None else task}.toml")
    check_place(target)
    if test is not None and (why := why_no_file(test)) is not None:
        raise UsageError(f"--test: {test}: {why}; give a file of public records, or leave it out")
    found = (
        guess(data, BUILT_IN[task.value].records if task else None) if data is not None else None
    )
    kind = task.value if task is not None else kind_of_task(found) if found is not None else None
    if kind is None or (found is not None and found.kind is None):
        columns = ", ".join(found.names[:MOST_SHOWN]) if found is not None else ""
        raise UsageError(
            f"{data}: its columns ({columns}) fit no task{f' {kind}' if kind else ''}; a text and "
            "a label (texts or integers, no dates), labels (a list) or a score, two texts and a "
            "label, words and tags (lists), items (ids) or messages (role, content) are needed: "
            "rename or convert them, or give only the task and fill in the recipe"
        )
    if test is not None and found is not None:
        _check_columns(test, found)
        if found.scores is not None:  # the scale must fit the public scores, too
            public = guess(test, BUILT_IN[kind].records).scores
            found = replace(found, scores=found.scores.with_(public))
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(new_recipe(kind, data, found, test))
    except FileExistsError:
        raise UsageError(
            f"{target}: exists already and is not overwritten; give another --out"
        ) from None
    if found is not None:
        typer.echo(
            f"guessed: {', '.join(f'{role} = {name}' for role, name in found.columns.items())} "
            f"(columns: {', '.join(found.names[:MOST_SHOWN])}); correct [data] in {target} if wrong"
        )
    needed = [
        *([] if data is not None else ["the training file"]),
        *([] if test is not None else ["a public test file"]),
        *([PUBLIC_FILES[kind]] if kind in PUBLIC_FILES else []),
    ]
    first = f"name {_listed(needed)} in it, then: " if needed else "now: "
    typer.echo(f"{target} written; {first}cloister simulate {target}")


def _check_columns(test: Path, found: Guess) -> None:
    """Refuses a test file without a column that scores need; a unit or site it may lack."""
    from cloister.data.guess import guess

    own = guess(test, None).names
    needed = {role: name for role, name in found.columns.items() if role not in _NOT_SCORED}
    if lacking := [f"{name} ({role})" for role, name in needed.items() if name not in own]:
        raise UsageError(
            f"--test: {test} lacks {_listed(lacking)}, a column of --data; it has "
            f"{', '.join(own[:MOST_SHOWN])}: rename its columns"
        )


def _listed(parts: list[str]) -> str:
    """Joins parts as a sentence lists them: `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
