"""Uncompressed ZIP archives of other parties, checked for size before `zipfile` reads them.

`zipfile` makes an object for every record of a directory of any length, and until Python 3.11.7
lets records share their bytes, so that 5 MB unpack to 1.5 GB.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cloister.bounds import MOST_SITES, shortened
from cloister.errors import BadFileError
from cloister.files import open_file

# Most members: a file for each of the most sites, and a tenth more for the adapter.
MOST_MEMBERS = MOST_SITES + MOST_SITES // 10
# Most bytes of a member's record in the directory: 46, a name of at most 255, and a folder's name.
MOST_RECORD = 400
# Bytes of a member's own header, without its name (APPNOTE 4.3.7), and an archive's end (4.3.16).
_LOCAL, _END = 30, struct.Struct("<4s4H2LH")
# Bytes of a piece, for members that are read in pieces.
PIECE = 2**20


class StoredZip:
    """An archive open for reading; every member was checked.

    Args:
        path: Its file.
        names: The allowed names of members.

    Raises:
        BadFileError: It is missing or not such an archive, or a member is compressed, encrypted, a
            link or device, has a name that is not allowed or a duplicate one, or shares its bytes
            with another.
    """

    def __init__(self, path: Path, names: re.Pattern[str]) -> None:
        self._path = path
        try:
            self._file = open_file(path)
        except OSError as error:
            raise self._unfit(error.strerror or type(error).__name__) from error
        try:
            self._members = self._open(names)
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of all members, in the archive's order."""
        return tuple(self._members)

    def read(self, name: str, most: int) -> bytes:
        """Reads one member's content, and checks its length and checksum.

        Args:
            name: The member's name.
            most: Most bytes.

        Raises:
            BadFileError: It is damaged or longer.
        """
        if self._members[name].file_size > most:
            raise self._unfit(f"{shortened(name)} has more than {most} bytes")
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yields a member's content, piece by piece.

        Raises:
            BadFileError: It is damaged.
        """
        try:
            with self._archive.open(self._members[name]) as member:
                while piece := member.read(PIECE):
                    yield piece
        except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise self._unfit(_short(error)) from error

    def __enter__(self) -> StoredZip:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._archive.close()
        self._file.close()

    def _open(self, names: re.Pattern[str]) -> dict[str, zipfile.ZipInfo]:
        try:
            count, start = self._end()
            self._archive = zipfile.ZipFile(self._file)
            listed = self._archive.infolist()
        except (
            OSError,
            zipfile.BadZipFile,
            EOFError,
            ValueError,
            NotImplementedError,
            struct.error,
        ) as error:
            raise self._unfit(_short(error)) from error
        if len(listed) != count:
            raise self._unfit("its directory lacks members or has more than it states")
        for member in listed:
            kind = stat.S_IFMT(member.external_attr >> 16)
            plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
            if (
                not plain
                or kind not in (0, stat.S_IFREG)
                or member.file_size != member.compress_size
                or not names.fullmatch(member.filename)
            ):
                raise BadFileError(
                    f"{self._path}: {shortened(member.filename)} is not allowed in a bundle"
                )
        members = {member.filename: member for member in listed}
        if len(members) != len(listed):
            raise BadFileError(f"{self._path}: duplicate name in it")
        self._check_apart(listed, start)
        return members

    def _end(self) -> tuple[int, int]:
        """Reads from the archive's end how many members it has and where their directory begins."""
        size = self._file.seek(0, 2)
        self._file.seek(max(0, size - _END.size))
        mark, disk, first, here, count, length, start, comment = _END.unpack(self._file.read())
        if mark != b"PK\x05\x06" or (disk, first, comment) != (0, 0, 0) or here != count:
            raise ValueError("it does not end like a ZIP archive")
        if count > MOST_MEMBERS or length > count * MOST_RECORD:
            raise ValueError(f"over {MOST_MEMBERS} members, or a longer directory than they need")
        if start + length + _END.size != size:
            raise ValueError("it has bytes that belong to no member")
        return count, start

    def _check_apart(self, listed: list[zipfile.ZipInfo], start: int) -> None:
        """Refuses members that share bytes: together they could be larger than the file."""
        ordered = sorted(listed, key=lambda member: member.header_offset)
        following = [member.header_offset for member in ordered[1:]] + [start]
        for member, end in zip(
            ordered, following, strict=False
        ):  # zip stops at once if there are no members
            if member.header_offset + _LOCAL + member.file_size > end:
                raise BadFileError(
                    f"{self._path}: {shortened(member.filename)} shares its bytes with another"
                )

    def _unfit(self, why: str) -> BadFileError:
        return BadFileError(f"{self._path}: not a bundle, incomplete, or damaged ({why})")


def _short(error: Exception) -> str:
    """Shortens an error's text: `zipfile` repeats whole names."""
    return str(error)[:200]
