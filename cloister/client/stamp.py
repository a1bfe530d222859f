"""A file's size, time and hash when it was read, to see later whether it changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cloister.errors import DataError
from cloister.files import open_file


@dataclass(frozen=True)
class ContentStamp:
    """Identifies a file's content at one moment, by size, time of change and hash.

    Attributes:
        size: In bytes.
        mtime_ns: When it was last written, in nanoseconds.
        sha256: SHA-256 of its content, in hex. For private records it is private too, because it
            would confirm a guess of the whole file.
    """

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Takes the stamp of a file as it is now.

        Raises:
            DataError: The path is not a regular file, or cannot be read.
        """
        try:
            with open_file(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                found = os.fstat(stream.fileno())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"{path}: cannot be read ({reason}); correct site.data in site.toml"
            ) from error
        return cls(found.st_size, found.st_mtime_ns, digest)

    def is_current(self, path: Path) -> bool:
        """Whether the file's content is unchanged; a copy of the same bytes counts as unchanged."""
        try:
            found = path.stat()
            same = (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)
            return same or ContentStamp.of(path).sha256 == self.sha256
        except (OSError, DataError):
            return False

    def document(self) -> dict[str, Any]:
        """Returns the stamp as JSON values."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Builds a stamp from JSON values.

        Raises:
            ValueError: The document is not a stamp.
        """
        try:
            return cls(int(document["size"]), int(document["mtime_ns"]), str(document["sha256"]))
        except (KeyError, TypeError) as error:
            raise ValueError("this is not a stamp of a file") from error
