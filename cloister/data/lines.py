"""Lines of a text file, one at a time: UTF-8 with or without a byte order mark, or one error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cloister.data.values import MOST_ROW_BYTES
from cloister.errors import DataError
from cloister.files import open_file

BOM = b"\xef\xbb\xbf"
# Byte order marks of UTF-16 and, since they begin alike, of UTF-32 (little-endian).
_WIDE = (b"\xff\xfe", b"\xfe\xff")


def open_text(path: Path) -> BinaryIO:
    """Opens a file after its byte order mark.

    Raises:
        DataError: It is UTF-16 or UTF-32.
        OSError: It cannot be read.
    """
    file = open_file(path)
    start = file.read(len(BOM))
    if start.startswith(_WIDE):
        file.close()
        raise DataError(f"{path}: is UTF-16 or UTF-32; save it as UTF-8")
    file.seek(len(BOM) if start == BOM else 0)
    return file


def text_lines(path: Path, word: str) -> Iterator[tuple[int, str]]:
    """Yields each line with its number, from 1, and with its line break.

    Only a line feed ends a line: the other characters that Python takes for line breaks occur in
    texts.

    Args:
        path: The file.
        word: What a message calls a line of it: `row` or `line`.

    Raises:
        DataError: A line is too long, not UTF-8, or holds a NUL byte; or the file is UTF-16.
        OSError: It cannot be read.
    """
    with open_text(path) as file:
        number = 0
        while line := file.readline(MOST_ROW_BYTES + 1):
            number += 1
            where = f"{path.name}, {word} {number}"
            if len(line) > MOST_ROW_BYTES:
                raise DataError(
                    f"{where}: longer than {MOST_ROW_BYTES >> 20} MiB, the most that a row may "
                    "hold; correct or split it"
                )
            if b"\0" in line:
                raise DataError(
                    f"{where}: holds a NUL byte, so this is no text in UTF-8; save the file as "
                    "UTF-8, or correct the row"
                )
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8; save the file as UTF-8") from error
