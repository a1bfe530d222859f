"""Defines a source of lines, and the mark at which a watch continues after a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Mark:
    """The place up to which a file was read.

    Attributes:
        device: The file's device.
        inode: The file's inode.
        offset: Bytes up to the end of the last line that was read.
        head: SHA-256 of the file's first bytes, which shows if the file was emptied and filled
            again.
        head_bytes: Number of these bytes.
        line: Number of lines so far.
        skipping: Whether the bytes up to the next line's end belong to a line that is too long.
    """

    device: int
    inode: int
    offset: int
    head: str
    head_bytes: int
    line: int = 0
    skipping: bool = False


@dataclass(frozen=True)
class LineBatch:
    """Lines that one read returned.

    Attributes:
        lines: The lines with their numbers, from 1; None in place of a line that is too long.
        mark: The file's mark after them; None: the source cannot be continued after a restart.
        ended: Whether the source has ended.
        notices: Messages for the operator.
        kept: Is called once the lines are in the state on disk, with the number of rows and the
            reasons for other lines; None: it is not called.
    """

    lines: tuple[tuple[int, bytes | None], ...] = ()
    mark: Mark | None = None
    ended: bool = False
    notices: tuple[str, ...] = ()
    kept: Callable[[int, Mapping[str, int]], None] | None = None


class PredictionSource(Protocol):
    """A source of lines, in their order."""

    def read(self, seconds: float) -> LineBatch:
        """Returns the next lines; an empty batch if none comes within the time."""
        ...

    def close(self) -> None:
        """Closes the files and sockets that the source opened."""
        ...
