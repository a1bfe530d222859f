"""Rich's console for tables and colours, in which other parties' control characters are harmless.

Rich separates text and style, so this console cleans the text, reads markup only if a call asks for
it, and bypasses `cli.streams`, which would show colours as text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cloister.cli.streams import Printing
from cloister.printable import printable

# Width where there is no terminal: wider than any table, so that none is broken. Rich takes 80.
UNBROKEN = 10_000


class Terminal(Console):
    """Rich's console; strings are plain text, and markup only if a call asks for it.

    Without a terminal (a pipe, a file) nothing is wrapped, unless COLUMNS states a width.

    Args:
        stderr: Whether it writes to stderr.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = UNBROKEN

    @property
    def file(self) -> IO[str]:
        """The stream beneath `Printing`, which would show colours as text."""
        found = super().file
        return found.beneath if isinstance(found, Printing) else found

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Rich's segments; the text in them is made printable."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)
