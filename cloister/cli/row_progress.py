"""Progress of a command that goes through the rows of a file, whose number nobody knows yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister.cli.terminal import Terminal


@contextmanager
def row_progress(verb: str) -> Iterator[Callable[[int], None] | None]:
    """Shows on stderr how many rows were gone through; nothing where that is no terminal.

    Args:
        verb: What is done with them: `scrubbed`.

    Yields:
        What to tell the number of rows so far; None where nothing is shown.
    """
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status(f"no row {verb} yet") as status:
        yield lambda rows: status.update(f"{rows:,} rows {verb}")
