"""Output streams that make control characters of other parties' texts visible and harmless.

`printing` applies `printable` to stdout and stderr, so that errors, log lines and all other output
pass through it. Coloured output uses `cli.terminal`.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from cloister.printable import printable

# Most characters of an error message: a recipe's 20 problems, of two lines each.
MOST_SHOWN = 4000


class Printing(io.TextIOBase):
    """A stream whose text is made printable.

    It reports that it is not a terminal, so no library sends escape sequences, which would be
    shown.

    Args:
        beneath: The stream that gets the text.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the wrapped stream."""
        return getattr(self.beneath, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Writes text with its control characters made visible."""
        self.beneath.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the wrapped stream."""
        self.beneath.flush()

    def fileno(self) -> int:
        """The file descriptor of the wrapped stream."""
        return self.beneath.fileno()

    def writable(self) -> bool:
        """Returns True: text can be written to it."""
        return True

    def isatty(self) -> bool:
        """Returns False: what is written is not interpreted by a terminal."""
        return False


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Wraps stdout and stderr in `Printing`."""
    with (
        contextlib.redirect_stdout(Printing(sys.stdout)),
        contextlib.redirect_stderr(Printing(sys.stderr)),
    ):
        yield


def say_error(text: str) -> None:
    """Prints the message of the error that ends a command."""
    more = "…" if len(text) > MOST_SHOWN else ""
    print(f"cloister: {text[:MOST_SHOWN]}{more}", file=sys.stderr)  # noqa: T201
