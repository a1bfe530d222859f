"""Stores a registry's files in a folder of this machine, or at a URL that fsspec opens.

A registry needs three operations: write a file completely or not at all, create a file that only
one of several writers can create, and list a folder. In a folder, hard links and syncs provide
them. At a URL they depend on the fsspec implementation: `pipe_file(mode="create")`, for which
object stores use a conditional request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, whole_file, write_whole


class Store(Protocol):
    """Files by their path inside the registry, with `/` between its parts."""

    def read(self, path: str) -> bytes | None:
        """Returns a file's content; None if there is no such file."""

    def write(self, path: str, content: bytes) -> None:
        """Writes a file completely, and replaces an existing one."""

    def create(self, path: str, content: bytes) -> bool:
        """Writes a new file; if it exists already, leaves it unchanged and returns False."""

    def names(self, folder: str) -> Sequence[str]:
        """Returns the names directly in a folder, sorted; empty if there is no such folder."""


def open_store(place: str) -> Store:
    """Opens the folder or URL of a registry; nothing is created.

    Args:
        place: A folder, or an fsspec URL (`s3://…`, `memory://…`).

    Raises:
        UsageError: fsspec does not know this kind of URL, or a package for it is missing.
        BadFileError: The place is a file.
    """
    if "://" not in place:
        folder = Path(place).expanduser()
        if folder.is_file():
            raise BadFileError(f"--registry {place}: is a file, not a folder; give a folder")
        return FolderStore(folder)
    return open_url(place, f"--registry {place}")


def open_url(url: str, shown: str) -> RemoteStore:
    """Opens a URL by fsspec; nothing is read or created.

    Args:
        url: It, perhaps with a password.
        shown: What a message says about it.

    Raises:
        UsageError: fsspec does not know this kind of URL, or a package for it is missing.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{shown}: fsspec does not open it ({error})") from error
    return RemoteStore(files, root.rstrip("/"))


@dataclass(frozen=True)
class FolderStore:
    """Stores a registry in a folder of this machine.

    Guarantees:
        A file is complete or absent, also after a power cut. Of several callers of `create`, only
        one succeeds (POSIX `link`). If the disk is full, the earlier content stays.
    """

    root: Path

    def read(self, path: str) -> bytes | None:
        """Implements `Store.read`."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise bad_file(error, "read") from error

    def write(self, path: str, content: bytes) -> None:
        """Implements `Store.write`."""
        file = self.root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
        except OSError as error:
            raise bad_file(error, "written") from error

    def create(self, path: str, content: bytes) -> bool:
        """Implements `Store.create`."""
        file = self.root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with whole_file(file, is_new=True) as new:
                    new.write(content)
            except FileExistsError:
                return False
        except OSError as error:
            raise bad_file(error, "written") from error
        return True

    def names(self, folder: str) -> Sequence[str]:
        """Implements `Store.names`."""
        place = self.root / folder
        try:
            return sorted(p.name for p in place.iterdir() if not p.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise bad_file(error, "read") from error


@dataclass(frozen=True)
class RemoteStore:
    """Stores a registry in a file system of fsspec.

    Attributes:
        files: The fsspec file system.
        root: Path of the registry in it.
    """

    files: Any
    root: str

    def read(self, path: str) -> bytes | None:
        """Implements `Store.read`."""
        try:
            return bytes(self.files.cat_file(f"{self.root}/{path}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each implementation raises errors of its own
            raise self._bad(path, "read", error) from error

    def write(self, path: str, content: bytes) -> None:
        """Implements `Store.write`."""
        self._pipe(path, content, "overwrite")

    def create(self, path: str, content: bytes) -> bool:
        """Implements `Store.create`."""
        try:
            self._pipe(path, content, "create")
        except FileExistsError:
            return False
        return True

    def names(self, folder: str) -> Sequence[str]:
        """Implements `Store.names`."""
        place = f"{self.root}/{folder}"
        try:
            self.files.invalidate_cache(place)
            found = self.files.ls(place, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._bad(folder, "listed", error) from error
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def _pipe(self, path: str, content: bytes, mode: str) -> None:
        file = f"{self.root}/{path}"
        try:
            self.files.makedirs(file.rsplit("/", 1)[0], exist_ok=True)
            self.files.pipe_file(file, content, mode=mode)
        except FileExistsError:
            raise
        except Exception as error:
            raise self._bad(path, "written", error) from error

    def _bad(self, path: str, what: str, error: Exception) -> BadFileError:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return BadFileError(f"{self.root}/{path}: cannot be {what} ({first}); try again")
