"""Reads a file's text as UTF-8, whatever encoding it is stored in, and its lines one by one."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from cloister.data.formats import FileForm
from cloister.data.values import MOST_ROW_BYTES
from cloister.errors import DataError
from cloister.files import open_file

BOM = b"\xef\xbb\xbf"
# Byte order marks of UTF-16. That of UTF-32 (little-endian) begins with the same bytes.
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_CHUNK = 2**20
# The default form of a file.
UTF8 = FileForm(kind="json")


@contextmanager
def open_bytes(path: Path, is_gzip: bool = False) -> Iterator[BinaryIO]:
    """Opens a file, decompressed.

    Raises:
        DataError: It is damaged, or is not gzip although it must be; also raised while it is read.
        OSError: It cannot be read.
    """
    with open_file(path) as raw:
        if not is_gzip:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                yield cast(BinaryIO, io.BufferedReader(file))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path}: damaged or not gzip ({error}); copy it again, or correct its ending"
            ) from error


@contextmanager
def open_text(path: Path, form: FileForm = UTF8) -> Iterator[BinaryIO]:
    """Opens a file behind its byte order mark; reads give UTF-8 whatever the file's encoding.

    Raises:
        DataError: The file is UTF-16 or UTF-32 although UTF-8 is needed; or, while it is read,
            bytes are not valid in the stated encoding.
        OSError: It cannot be read.
    """
    with open_bytes(path, form.is_gzip) as file:
        if form.encoding != "utf-8":
            yield cast(BinaryIO, io.BufferedReader(_Recoded(file, path, form.encoding), _CHUNK))
            return
        start = file.read(len(BOM))
        if start.startswith(_WIDE):
            raise DataError(
                f"{path}: is UTF-16 or UTF-32; save it as UTF-8, set `encoding` beside the "
                "file's name, or rewrite it with `cloister data clean`"
            )
        file.seek(len(BOM) if start == BOM else 0)
        yield file


class _Recoded(io.RawIOBase):
    """Converts the bytes of a file in another encoding to UTF-8 while they are read."""

    def __init__(self, file: BinaryIO, path: Path, encoding: str) -> None:
        self._file, self._path, self._encoding = file, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._ready = b""
        self._lines = 1
        self._is_start = True

    def readable(self) -> bool:
        """Returns True: the stream is open for reading."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fills a buffer and returns the number of bytes; 0 at the file's end.

        Raises:
            DataError: Bytes are not valid in the encoding.
        """
        view = memoryview(cast(bytearray, buffer)).cast("B")
        while not self._ready:
            chunk = self._file.read(_CHUNK)
            self._ready = self._decoded(chunk).encode("utf-8", "surrogatepass")
            self._lines += self._ready.count(b"\n")
            if not chunk:
                break
        size = min(len(view), len(self._ready))
        view[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _decoded(self, chunk: bytes) -> str:
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            before = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
            line = self._lines + before.decode(self._encoding, "ignore").count("\n")
            raise DataError(
                f"{self._path.name}, line {line}: not valid {self._encoding}; correct the line, or "
                "name the right encoding"
            ) from error
        if text and self._is_start:
            self._is_start = False
            text = text.removeprefix("\ufeff")
        return text


def text_lines(path: Path, word: str, form: FileForm = UTF8) -> Iterator[tuple[int, str]]:
    """Yields each line with its number, from 1, and with its line break.

    Only a line feed ends a line: other characters that Python treats as line breaks occur inside
    of texts.

    Args:
        path: The file.
        word: The word for a line in messages: `row` or `line`.
        form: The file's encoding and compression.

    Raises:
        DataError: A line is too long, not valid in the encoding, or has a NUL byte; or the file is
            UTF-16 although UTF-8 is needed.
        OSError: It cannot be read.
    """
    with open_text(path, form) as file:
        number = 0
        while line := file.readline(MOST_ROW_BYTES + 1):
            number += 1
            if len(line) > MOST_ROW_BYTES:
                raise DataError(
                    f"{path.name}, {word} {number}: longer than {MOST_ROW_BYTES >> 20} MiB, the "
                    "most that a row may hold; correct or split it"
                )
            if b"\0" in line:
                raise DataError(
                    f"{path.name}, {word} {number}: has a NUL byte, so it is not text in UTF-8; "
                    "save the file as UTF-8, or correct the row"
                )
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path.name}, {word} {number}: not UTF-8; save the file as UTF-8, or rewrite "
                    "it with `cloister data clean`, which reads GB18030 and others"
                ) from error
