"""Where lines come from, and the mark by which a watch goes on after a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Mark:
    """The place up to which a file was read.

    Attributes:
        device: Of the file.
        inode: Of the file.
        offset: Bytes up to the end of the last line that was read.
        head: SHA-256 of the file's first bytes, by which a file that was emptied and filled again
            is found out.
        head_bytes: Their number.
        line: Lines so far.
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
    """Lines that came together.

    Attributes:
        lines: Each with its number from 1 on; None: it was longer than a line may be.
        mark: Of the file after them; None: the source has no place to go on from.
        ended: Whether nothing comes any more.
        notices: What the operator should know.
        kept: Called once the lines are in the state on disk, with how many are rows and why others
            are not; None: nobody waits.
    """

    lines: tuple[tuple[int, bytes | None], ...] = ()
    mark: Mark | None = None
    ended: bool = False
    notices: tuple[str, ...] = ()
    kept: Callable[[int, Mapping[str, int]], None] | None = None


class PredictionSource(Protocol):
    """Gives lines in their order."""

    def read(self, seconds: float) -> LineBatch:
        """The next lines; an empty batch where none comes within the time."""
        ...

    def close(self) -> None:
        """Closes what it holds."""
        ...
