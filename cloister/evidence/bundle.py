"""The bundle: a finished study's adapter with every site's certificate and ledger, in one file.

Of a study of votes the synthetic records take the adapter's place.

A ZIP archive, nothing in it compressed:

    sites/NAME.json    a site's certificate and ledger (`ledger.certificate`)
    adapter/FILE       the adapter's files, without its card
    received.json      [[round, site, SHA-256, head], …]: what the coordinator received; a row of a
                       private evaluation ends with "evaluation", one of votes with "vote"
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.errors import BadFileError, UsageError
from cloister.evidence.fingerprint import MOST_TOLD, UNCOVERED, Hashed
from cloister.evidence.stored_zip import StoredZip
from cloister.json_text import read_json
from cloister.ledger.certificate import MOST_BYTES as MOST_EVIDENCE
from cloister.ledger.certificate import Evidence, read_evidence
from cloister.names import NAME
from cloister.printable import one_line
from cloister.privacy.release_kind import ReleaseKind

# Allowed names of members: only these folders, and nothing hidden.
MEMBER = re.compile(rf"(sites/{NAME}\.json|adapter/{NAME}|received\.json)")
# The time of every member, so that equal contents give equal bytes; the earliest that ZIP can hold.
STAMP = (1980, 1, 1, 0, 0, 0)
# Fewest bytes per JSON value in received.json: half of the usual, as a row has 5 values in 150
# bytes.
_BYTES_A_VALUE = 15
# Most bytes of received.json: 900,000 rows, for example 1,000 sites in 900 rounds.
MOST_RECEIVED = 2**27


@dataclass(frozen=True)
class Received:
    """An update as the coordinator received it.

    Attributes:
        round: Round of the study.
        site: The site that sent it.
        sha256: SHA-256 of its bytes.
        head: SHA-256 of the ledger's entry for it, as the site stated it then.
        kind: Whether it is an update, the private evaluation after the round, or votes.
    """

    round: int
    site: str
    sha256: str
    head: str
    kind: ReleaseKind = ReleaseKind.TRAINING

    def row(self) -> list[int | str]:
        """Returns the values for a file; an update's has no kind, as in older bundles."""
        kind = () if self.kind is ReleaseKind.TRAINING else (self.kind.value,)
        return [self.round, self.site, self.sha256, self.head, *kind]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Received:
        """Reads the values of `row`.

        Raises:
            ValueError: They are no such row.
        """
        kinds = [type(value) for value in row]
        others = (ReleaseKind.EVALUATION, ReleaseKind.VOTE)
        known = [[], *([kind] for kind in others)]
        if kinds[:4] != [int, str, str, str] or list(row[4:]) not in known:
            raise ValueError("no round, site and hash")
        return cls(row[0], row[1], row[2], row[3], ReleaseKind(*row[4:] or ["training"]))


@dataclass(frozen=True)
class Bundle:
    """The contents of an evidence bundle.

    Attributes:
        sites: Evidence by site.
        adapter: Contents by file name; in a bundle that was read, hashes instead, except for
            `cloister.json`.
        received: The updates, evaluations and votes that the coordinator says it received.
    """

    sites: Mapping[str, Evidence]
    adapter: Mapping[str, bytes | Hashed]
    received: Sequence[Received]


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Writes adapter and certificates into one bundle.

    Raises:
        UsageError: A name in it is not allowed in an archive.
        BadFileError: It cannot be written.
    """
    members: dict[str, bytes | Hashed] = {
        f"sites/{name}.json": e.to_json() for name, e in bundle.sites.items()
    }
    members |= {f"adapter/{name}": content for name, content in bundle.adapter.items()}
    members["received.json"] = canonical([received.row() for received in bundle.received])
    unfit = [name for name in members if not MEMBER.fullmatch(name)]
    if unfit:
        raise UsageError(
            f"{shortened(unfit[0])}: not a valid file name: it must have no / or \\ and not begin "
            "with a dot"
        )
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                assert isinstance(content, bytes), "a bundle that was read is not written again"
                archive.writestr(zipfile.ZipInfo(name, STAMP), content)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written ({error}); name another place") from error


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle's files; its claims are not checked yet (`verification.examine`).

    Raises:
        BadFileError: It is missing or damaged, or has a member that a bundle cannot have.

    Guarantees:
        Memory is bounded by a few times the file's size. The adapter's files may be large; they are
        read piece by piece.
    """
    sites: dict[str, Evidence] = {}
    adapter: dict[str, bytes | Hashed] = {}
    received: list[Received] | None = None
    with StoredZip(path, MEMBER) as archive:
        for name in archive.names:
            folder, _, file = name.rpartition("/")
            if folder == "sites":
                content = archive.read(name, MOST_EVIDENCE)
                sites[file.removesuffix(".json")] = read_evidence(content, f"{path}: {name}")
            elif name == "adapter/cloister.json":
                adapter[file] = archive.read(name, MOST_TOLD)
            elif folder == "adapter":
                adapter[file] = Hashed(_sha256(archive, name))
            else:
                received = _received(archive.read(name, MOST_RECEIVED), path)
    if not sites or "cloister.json" not in adapter or UNCOVERED in adapter or received is None:
        raise BadFileError(
            f"{path}: not a whole bundle: it lacks certificates or what they certify"
        )
    return Bundle(sites, adapter, received)


def _sha256(archive: StoredZip, name: str) -> str:
    found = hashlib.sha256()
    for piece in archive.pieces(name):
        found.update(piece)
    return found.hexdigest()


def _received(content: bytes, path: Path) -> list[Received]:
    most = len(content) // _BYTES_A_VALUE + 1
    try:
        rows = read_json(content, most_bytes=MOST_RECEIVED, most_values=most)
        if not isinstance(rows, list) or canonical(rows) != content:
            raise ValueError("no list")
        received = [Received.of(row) for row in rows]
    except (ValueError, TypeError) as error:
        said = one_line(str(error), 200)
        raise BadFileError(f"{path}: received.json is damaged ({said})") from error
    return received
