"""Progress of a command over a file's rows, whose number is not known yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister.cli.terminal import Terminal


@contextmanager
def row_progress(verb: str) -> Iterator[Callable[[int], None] | None]:
    """Shows the number of processed rows on stderr; nothing if that is not a terminal.

    Args:
        verb: The work as a participle, such as `scrubbed`.

    Yields:
        A function to call with the number of rows so far; None if nothing is shown.
    """
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status(f"no row {verb} yet") as status:
        yield lambda rows: status.update(f"{rows:,} rows {verb}")
