"""Rich's console for tables and colours, in which other parties' control characters are harmless.

Text and style are told apart in it, so it cleans the text, reads no markup in it unless a call says
so, and writes past `cli.streams`, which would show colours instead of making them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from cloister.cli.streams import Printing
from cloister.printable import printable


class Terminal(Console):
    """Rich's console; strings are text, and markup only where a call says so.

    Args:
        stderr: Whether it writes there.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    @property
    def file(self) -> IO[str]:
        """The stream beneath `Printing`, which would show colours instead of making them."""
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
