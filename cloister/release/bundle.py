"""The bundle: a finished study's adapter with every site's certificate and ledger, in one file.

A ZIP archive, nothing in it compressed:

    sites/NAME.json    a site's certificate and ledger (`privacy.certificate`)
    adapter/FILE       the adapter's files, but for its card
    received.json      [[round, site, SHA-256, head], …]: what the coordinator received
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import BadFileError, UsageError
from cloister.names import NAME
from cloister.privacy.certificate import Evidence, read_evidence
from cloister.privacy.chain import canonical
from cloister.release.fingerprint import UNCOVERED

# What a member may be called: no folders but these, nothing hidden.
MEMBER = re.compile(rf"(sites/{NAME}\.json|adapter/{NAME}|received\.json)")
# Of every member, so that equal contents give equal bytes; the earliest that ZIP can hold.
STAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Received:
    """An update as the coordinator saw it.

    Attributes:
        round: Of the study.
        site: Who sent it.
        sha256: Of its bytes.
        head: SHA-256 of the ledger's entry for it, as the site told it then.
    """

    round: int
    site: str
    sha256: str
    head: str


@dataclass(frozen=True)
class Bundle:
    """A bundle's contents.

    Attributes:
        sites: Evidence by site.
        adapter: Contents by file name.
        received: What the coordinator says it received.
    """

    sites: Mapping[str, Evidence]
    adapter: Mapping[str, bytes]
    received: Sequence[Received]


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Writes a bundle.

    Raises:
        UsageError: A name in it is none that an archive may hold.
        BadFileError: It cannot be written.
    """
    members = {f"sites/{name}.json": e.to_json() for name, e in bundle.sites.items()}
    members |= {f"adapter/{name}": content for name, content in bundle.adapter.items()}
    rows = [[r.round, r.site, r.sha256, r.head] for r in bundle.received]
    members["received.json"] = canonical(rows)
    odd = [name for name in members if not MEMBER.fullmatch(name)]
    if odd:
        raise UsageError(
            f"{odd[0]!r}: no name for a file: it may hold neither / nor \\, nor begin with a dot"
        )
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name, STAMP), content)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written ({error}); name another place") from error


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle, of which nothing is believed yet.

    Raises:
        BadFileError: It is missing, damaged, or holds what no bundle holds.
    """
    sites: dict[str, Evidence] = {}
    adapter: dict[str, bytes] = {}
    received: list[Received] | None = None
    for name, content in _members(path).items():
        folder, _, file = name.rpartition("/")
        if folder == "sites":
            sites[file.removesuffix(".json")] = read_evidence(content, f"{path}: {name}")
        elif folder == "adapter":
            adapter[file] = content
        else:
            received = _received(content, path)
    if not sites or "cloister.json" not in adapter or UNCOVERED in adapter or received is None:
        raise BadFileError(f"{path}: not a whole bundle: it lacks certificates or an adapter")
    return Bundle(sites, adapter, received)


def _members(path: Path) -> dict[str, bytes]:
    """Contents by name; as stored, so never larger than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
            for member in listed:
                plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
                if not plain or not MEMBER.fullmatch(member.filename):
                    raise BadFileError(
                        f"{path}: {member.filename!r} is nothing that a bundle holds"
                    )
            contents = {member.filename: archive.read(member) for member in listed}
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise BadFileError(f"{path}: no bundle, cut off, or damaged ({error})") from error
    if len(contents) != len(listed):
        raise BadFileError(f"{path}: a name in it is there twice")
    return contents


def _received(content: bytes, path: Path) -> list[Received]:
    try:
        rows = json.loads(content)
        if not isinstance(rows, list) or canonical(rows) != content:
            raise ValueError("no list")
        received = [Received(*row) for row in rows]
        kinds = {(type(r.round), type(r.site), type(r.sha256), type(r.head)) for r in received}
        if kinds - {(int, str, str, str)}:
            raise ValueError("no round, site and hash")
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFileError(f"{path}: received.json is damaged ({error})") from error
    return received
