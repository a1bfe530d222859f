"""Reads and writes archives: a tar in which every byte is checked before anything is unpacked.

The first member is a manifest, named by its own SHA-256: who made it, and name, size and SHA-256 of
each further member. The manifest determines everything else in the file, including headers and
padding, and the file is compared with it. So it is read as a stream, without a parser of headers:
no links, no folders, no types, no rights, no duplicate names. `tar` can read it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cloister.bounds import shortened
from cloister.errors import BadFileError
from cloister.files import bad_file, open_file, sync, whole_file
from cloister.names import is_name

FORMAT = 1
# Most bytes of a manifest, and most members: a site's has tens, of 150 bytes each.
MOST_MANIFEST, MOST_MEMBERS = 2**20, 5_000
# Most bytes of a member's name: the longest path of Linux.
LONGEST_NAME = 4096
_BLOCK, _CHUNK = 512, 2**20
_END = bytes(2 * _BLOCK)
_MANIFEST = re.compile("MANIFEST\\.([0-9a-f]{64})")
_SHA256 = re.compile("[0-9a-f]{64}")

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class ArchivedFile:
    """A file's entry in an archive's manifest.

    Attributes:
        name: A relative path of plain names.
        size: Size in bytes.
        sha256: SHA-256 of its content.
    """

    name: str
    size: int
    sha256: str


class Archive:
    """An open archive, in which every byte was compared with its manifest.

    Attributes:
        path: Its path.
        about: Its maker's description.
        members: The files in it, in their order.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._length = os.fstat(stream.fileno()).st_size
        self.about, self.members = self._manifest()
        self._check()

    @property
    def size(self) -> int:
        """Returns the size of all members together, in bytes."""
        return sum(member.size for member in self.members)

    def read(self, name: str, most: int) -> bytes:
        """Reads one member's content, and checks its length and hash.

        Raises:
            BadFileError: It does not exist, is longer than `most`, or the archive changed
                meanwhile.
        """
        found = [member for member in self.members if member.name == name]
        if not found or found[0].size > most:
            raise BadFileError(
                f"{self.path}: has no {name} of at most {most:,} bytes; it is a backup of another "
                "kind"
            )
        parts: list[bytes] = []
        self._seek(found[0])
        self._content(found[0], parts.append)
        return b"".join(parts)

    def unpack(self, places: Mapping[str, Path]) -> None:
        """Writes members to new files, readable by their owner only, and syncs each.

        Args:
            places: The path of each member; its folder must exist.

        Raises:
            BadFileError: The archive changed since it was opened.
            OSError: A file cannot be written, or exists already.
        """
        for member in self.members:
            self._seek(member)
            descriptor = os.open(places[member.name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                self._content(member, file.write)
                sync(file)

    def _manifest(self) -> tuple[Mapping[str, Any], tuple[ArchivedFile, ...]]:
        block = self._stream.read(_BLOCK)
        named = _MANIFEST.fullmatch(block[:100].rstrip(b"\0").decode("ascii", "replace"))
        try:
            size = tarfile.TarInfo.frombuf(block, "ascii", "strict").size
        except (tarfile.TarError, ValueError):
            named = None
        if named is None or not 0 < size <= MOST_MANIFEST or block != _header(named[0], size):
            raise BadFileError(
                f"{self.path}: not a backup of cloister, or damaged at its beginning"
            )
        content = self._stream.read(size)
        if hashlib.sha256(content).hexdigest() != named[1]:
            raise self._damaged("its manifest")
        self._expect(_padding(size), "its manifest")
        self._begin = self._stream.tell()
        try:
            stored = json.loads(content)
            rows = stored["files"]
            if stored["format"] != FORMAT or type(rows) is not list or len(rows) > MOST_MEMBERS:
                raise ValueError(f"format {shortened(stored['format'])}")
            about = dict(stored["about"])
            members = tuple(ArchivedFile(row["name"], row["bytes"], row["sha256"]) for row in rows)
            problem = _problem(members)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadFileError(
                f"{self.path}: its manifest cannot be read ({error!r}); use another backup"
            ) from error
        if problem:
            raise BadFileError(f"{self.path}: {problem}; it is not used")
        rest = sum(len(_header(m.name, m.size)) + m.size + len(_padding(m.size)) for m in members)
        if self._begin + rest + len(_END) != self._length:
            raise self._damaged("its length: cut off, or more than its manifest lists")
        return about, members

    def _check(self) -> None:
        for member in self.members:
            self._expect(_header(member.name, member.size), member.name)
            self._content(member, _nowhere)
            self._expect(_padding(member.size), member.name)
        self._expect(_END, "its end")
        self._expect(b"", "its end", 1)

    def _seek(self, member: ArchivedFile) -> None:
        place = self._begin
        for other in self.members:
            place += len(_header(other.name, other.size))
            if other == member:
                break
            place += other.size + len(_padding(other.size))
        self._stream.seek(place)

    def _content(self, member: ArchivedFile, sink: Sink) -> None:
        digest, left = hashlib.sha256(), member.size
        while left:
            chunk = self._stream.read(min(left, _CHUNK))
            if not chunk:
                raise self._damaged(member.name)
            digest.update(chunk)
            sink(chunk)
            left -= len(chunk)
        if digest.hexdigest() != member.sha256:
            raise self._damaged(member.name)

    def _expect(self, content: bytes, what: str, size: int | None = None) -> None:
        if self._stream.read(len(content) if size is None else size) != content:
            raise self._damaged(what)

    def _damaged(self, what: str) -> BadFileError:
        return BadFileError(f"{self.path}: damaged ({what}); it is not used: give another")


def _nowhere(chunk: bytes) -> None:
    """Discards content that is only checked."""


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Opens an archive and checks all of it; nothing is written.

    Raises:
        BadFileError: It is not an archive, or a byte differs from its manifest.

    Guarantees:
        Memory is bounded by `MOST_MANIFEST` and a chunk, for any file; all unpacked files together
        are at most as large as the archive.
    """
    try:
        with open_file(path) as stream:
            yield Archive(path, stream)
    except (OSError, ValueError) as error:
        raise bad_file(error) from error


def write_archive(out: Path, about: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Writes an archive, complete or not at all, readable by its owner only.

    Args:
        out: The path; an existing file is replaced.
        about: Its description, as JSON values.
        files: The files by their names in it; they must not change meanwhile.

    Raises:
        OSError: A file cannot be read, or the archive cannot be written.
        BadFileError: A name cannot be in an archive, or a file changed meanwhile.
    """
    members = tuple(_member(name, path) for name, path in files.items())
    if problem := _problem(members):
        raise BadFileError(f"{out}: {problem}")
    rows = [{"name": m.name, "bytes": m.size, "sha256": m.sha256} for m in members]
    document = {"format": FORMAT, "about": dict(about), "files": rows}
    manifest = json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"
    if len(manifest) > MOST_MANIFEST or len(members) > MOST_MEMBERS:
        raise BadFileError(
            f"{out}: {len(members):,} files given; at most {MOST_MEMBERS:,} are allowed"
        )
    with whole_file(out, 0o600) as file:
        name = f"MANIFEST.{hashlib.sha256(manifest).hexdigest()}"
        file.write(_header(name, len(manifest)) + manifest + _padding(len(manifest)))
        for member in members:
            file.write(_header(member.name, member.size))
            if _copied(files[member.name], file.write) != member.sha256:
                raise BadFileError(f"{files[member.name]}: changed while it was copied; try again")
            file.write(_padding(member.size))
        file.write(_END)


def _member(name: str, path: Path) -> ArchivedFile:
    return ArchivedFile(name, path.stat().st_size, _copied(path, _nowhere))


def _copied(path: Path, sink: Sink) -> str:
    """Copies a file, and returns the SHA-256 of the copied bytes."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            sink(chunk)
    return digest.hexdigest()


def _header(name: str, size: int) -> bytes:
    """Returns all blocks before a member's content."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _problem(members: Sequence[ArchivedFile]) -> str:
    """Returns what is wrong with a list of members; "": nothing."""
    seen: set[str] = set()
    for member in members:
        name = member.name
        if type(name) is not str or len(name) > LONGEST_NAME or not is_inner(name):
            return f"{shortened(name)}: not a path inside of a folder"
        if name in seen:
            return f"{shortened(name)}: listed twice"
        seen.add(name)
        if type(member.size) is not int or not 0 <= member.size < 2**62:
            return f"{shortened(name)}: {shortened(member.size)} bytes"
        if type(member.sha256) is not str or not _SHA256.fullmatch(member.sha256):
            return f"{shortened(name)}: no SHA-256"
    return ""


def is_inner(name: str) -> bool:
    """Returns whether a text is a relative path of plain names: no `..`, no hidden file."""
    return all(map(is_name, name.split("/")))
