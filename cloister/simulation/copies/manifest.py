"""The manifest of a run at a URL: every file with its size and SHA-256. It is written last.

    manifest.json       this
    writer.json         a random number of the folder that is copied here (`copies.place`)
    recipe.toml, …      the files of the run, as in its folder
    other/recipe.toml   a newer file, while the manifest names the one in its place

A file that the manifest names is never overwritten: what changed is written to the other of its two
places, then the manifest, then the former file is removed. So there is always one whole state, of a
closed round, and a writer that is killed leaves the one before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.bounds import MOST_SITES, shortened
from cloister.errors import BadFileError
from cloister.json_text import read_json
from cloister.ledger.chain import Head
from cloister.names import is_name
from cloister.simulation.copies.files import is_copied

FORMAT = 1
MANIFEST = "manifest.json"
CLAIM = "writer.json"
OTHER = "other"
# Most bytes of a claim, of a folder's mark or of a head: a number of 32 digits and a URL.
MOST_SMALL = 2**14
# Most files: three of each site (its ledger, the head, its certificate), and some of the run.
MOST_FILES = 3 * MOST_SITES + 1_000
# Most bytes of a manifest: 250 for a file, 150 for a site's head.
MOST_MANIFEST = 250 * MOST_FILES + 150 * MOST_SITES
# Values of a row, with its list; and of a head.
_VALUES = 5 * MOST_FILES + 3 * MOST_SITES + 100
# Longest path in bytes: two names and what is between them, each at most 200 (`names.LONGEST`).
_LONGEST_PATH = 402
# Most bytes of all files together: a run of a 70B base has adapters of a few GB.
MOST_BYTES = 2**40
_HEX = re.compile("[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class CopiedFile:
    """A file of the run at the URL.

    Attributes:
        size: Its size in bytes.
        sha256: SHA-256 of its content, in hex.
        is_other: Whether it is below `other/`.
    """

    size: int
    sha256: str
    is_other: bool = False

    def place(self, path: str) -> str:
        """Returns where the file is at the URL, by its path in the run."""
        return f"{OTHER}/{path}" if self.is_other else path


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One whole state of a run.

    Attributes:
        writer: The random number of the folder that is copied.
        round: The last closed round.
        is_finished: Whether the study is finished.
        written: When it was written, in UTC.
        version: The version of Cloister that wrote it.
        heads: The head of each site's ledger.
        files: The files by their path in the run.
    """

    writer: str
    round: int
    is_finished: bool
    written: str
    version: str
    heads: Mapping[str, Head] = field(default_factory=dict)
    files: Mapping[str, CopiedFile] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Returns the bytes of all files together."""
        return sum(file.size for file in self.files.values())

    def __str__(self) -> str:
        state = "finished" if self.is_finished else "not finished"
        return f"{state}, {self.round} closed rounds, written {self.written}"

    def to_bytes(self) -> bytes:
        """Returns the file's content."""
        document = {
            "format": FORMAT,
            "writer": self.writer,
            "round": self.round,
            "finished": self.is_finished,
            "written": self.written,
            "cloister": self.version,
            "heads": {site: [head.seq, head.hash] for site, head in self.heads.items()},
            "files": {
                path: [file.size, file.sha256, int(file.is_other)]
                for path, file in self.files.items()
            },
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read_manifest(content: bytes, place: str) -> Manifest:
    """Reads a manifest that somebody else may have written.

    Args:
        content: The file's bytes.
        place: Where it is, for messages.

    Raises:
        BadFileError: It is damaged, has another format, or names a file that is not of a run.

    Guarantees:
        Every path is one that a run copies (`is_copied`): relative, without `..`, links or hidden
        names. There are at most `MOST_FILES` of them, of at most `MOST_BYTES` bytes together.
    """
    try:
        document = read_json(content, most_bytes=MOST_MANIFEST, most_values=_VALUES)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("of another format")
        found = _manifest(document)
        if found.size > MOST_BYTES:
            raise ValueError(f"of {found.size:,} bytes, more than {MOST_BYTES:,}")
    except (ValueError, KeyError, TypeError) as error:
        reason = error if isinstance(error, ValueError) else "a value is missing or of another type"
        raise BadFileError(
            f"{place}: its {MANIFEST} is damaged or no run's ({reason}); nothing was written. If a "
            "run is being copied there, try again after its next round"
        ) from error
    return found


def read_writer(content: bytes, place: str) -> str:
    """Reads the number of a folder in its own mark, or at the URL that belongs to it.

    Raises:
        BadFileError: It is damaged.
    """
    try:
        writer = read_json(content, most_bytes=MOST_SMALL)["writer"]
        if not isinstance(writer, str) or not is_name(writer):
            raise ValueError("no number")
    except (ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{place}: damaged ({error}), so it is not known which folder is copied there; choose "
            "another URL"
        ) from error
    return writer


def read_head(content: bytes) -> Head:
    """Reads the file of a head, which stands beside a ledger at the URL.

    Raises:
        ValueError: It is damaged.
    """
    document = read_json(content, most_bytes=MOST_SMALL)
    if not isinstance(document, dict):
        raise ValueError("no head")
    return _head("head", [document.get("seq"), document.get("hash")])


def _manifest(document: dict[str, Any]) -> Manifest:
    writer, version = document["writer"], document["cloister"]
    number, is_finished = document["round"], document["finished"]
    heads, files = document["heads"], document["files"]
    if not all(isinstance(one, str) and is_name(one) for one in (writer, version)):
        raise ValueError("its writer or version is invalid")
    if type(number) is not int or number < 0 or type(is_finished) is not bool:
        raise ValueError("its round is invalid")
    if not isinstance(document["written"], str) or not _TIME.fullmatch(document["written"]):
        raise ValueError("its time is invalid")
    if not isinstance(files, dict) or len(files) > MOST_FILES:
        raise ValueError("it has no list of files, or too many")
    if not isinstance(heads, dict) or len(heads) > MOST_SITES:
        raise ValueError("it has no list of heads, or too many")
    return Manifest(
        writer=writer,
        round=number,
        is_finished=is_finished,
        written=document["written"],
        version=version,
        heads={site: _head(site, row) for site, row in heads.items()},
        files={path: _file(path, row) for path, row in files.items()},
    )


def _head(site: str, row: object) -> Head:
    if not is_name(site) or not isinstance(row, list) or len(row) != 2:
        raise ValueError(f"the head of {shortened(site)} is invalid")
    seq, digest = row
    if type(seq) is not int or seq < 0 or not _is_digest(digest):
        raise ValueError(f"the head of {shortened(site)} is invalid")
    return Head(seq, digest)


def _file(path: str, row: object) -> CopiedFile:
    if len(path.encode()) > _LONGEST_PATH or not is_copied(path):
        raise ValueError(f"{shortened(path)} is no file that a run copies")
    if not isinstance(row, list) or len(row) != 3:
        raise ValueError(f"{shortened(path)}: its size and SHA-256 are missing")
    size, digest, other = row
    if type(size) is not int or size < 0 or not _is_digest(digest):
        raise ValueError(f"{shortened(path)}: its size or SHA-256 is invalid")
    if type(other) is not int or other not in (0, 1):
        raise ValueError(f"{shortened(path)}: its place is invalid")
    return CopiedFile(size, digest, bool(other))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
