"""Backs up a site into one file: its `site.toml`, ledger, keys, membership and notes.

site.toml        as it is
ledger           with the bytes of every release, so that each can be sent again unchanged
ledger.head      the ledger's head
ledger.key       the site's signing key
ledger.units.key the key of the keyed hash of its units, if there is one
ledger.held-out  the share of records that is held out, if one is fixed
personal/        the part of adapters that the site keeps (`client.personal`)
federation/      node key, enrolment documents, the coordinator's pinned authority and key
agent/           the agent's notes: refusals and proofs
approvals/       each account's decisions on studies, `UID.jsonl`

Left out are the records, the base, logs, documents of studies that ask again, files that a service
makes at its start, and the final adapters of finished studies, which are large and which the
coordinator has. Copy the folders that `cloister site status` names, or ask for them again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cloister import __version__
from cloister.archive import write_archive
from cloister.client.held_out_terms import terms_file
from cloister.client.personal import PersonalAdapter
from cloister.client.site_file import SiteFile, site_bytes, site_of
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import is_begun
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.files import bad_file, open_file
from cloister.ledger.chain import Entry
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.ledger.storage import LedgerFile
from cloister.ledger.unit_key import unit_key_file
from cloister.ledger.verify import Verdict, verify

KIND = "site"
# Files that a backup leaves out: the agent writes them again.
LEFT_OUT = frozenset({"agent.json", "records.json", "study.json", "reload"})
# A file of approvals counts only if the account of that number owns it.
_OF_ACCOUNT = re.compile(r"(\d{1,10})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A checked ledger, from its first entry to the bytes of its last release.

    Attributes:
        verdict: The verdict on it.
        entries: All entries, oldest first.
    """

    verdict: Verdict
    entries: Sequence[Entry]

    @property
    def time(self) -> str:
        """Returns the time of its last entry."""
        return str(self.entries[-1].fields["time"])


def sound_ledger(path: Path, key: Path) -> Sound:
    """Checks a ledger with all that belongs to it.

    Args:
        path: The ledger.
        key: The site's signing key.

    Raises:
        LedgerError: Chain, signatures, budget or head are invalid, the key does not belong to it,
            or the bytes of a release do not match its entry.
    """
    file = LedgerFile(path)
    entries = file.entries()
    verdict = verify(entries, str(path), public_key=public_hex(load_key(key)))
    released = {entry.seq: entry.sha256 for entry in verdict.history.released.values()}
    kept = {seq: sha256(content).hexdigest() for seq, content in file.payloads()}
    if kept != released:
        damaged = sorted(seq for seq in kept | released if kept.get(seq) != released.get(seq))
        raise LedgerError(
            f"{path}: the bytes of release {damaged[0]} are missing or changed; restore them from "
            "a backup"
        )
    return Sound(verdict=verdict, entries=entries)


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """The contents of a backup.

    Attributes:
        path: The file.
        site: The site's name.
        names: Names of its contents.
        ledger: The ledger's state.
        exposed: Whether others may read the file, because its file system has no access rights.
    """

    path: Path
    site: str
    names: tuple[str, ...]
    ledger: Sound
    exposed: bool


def back_up(site: Path, out: Path | None = None) -> BackedUp:
    """Writes a site's backup completely or not at all, readable by its owner only.

    Args:
        site: `site.toml`, or its folder.
        out: The backup's file; None: NAME.backup.tar in the present folder.

    Raises:
        UsageError: The file exists already.
        BadFileError: `site.toml` cannot be read, or the backup cannot be written.
        LedgerError: There is no ledger, or it is invalid.

    Guarantees:
        The site may keep running. The ledger is copied between two entries, after everything else,
        so no kept adapter belongs to a round that the copied ledger did not charge.
    """
    path = site / "site.toml" if site.is_dir() else site
    content = site_bytes(path)
    file = site_of(path, content)
    out = out or Path(f"{file.site.name}.backup.tar")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: exists already and is not overwritten; name another file")
    if not is_begun(file):
        raise LedgerError(f"{file.ledger}: no ledger yet; cloister site init {path} begins it")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup.", dir=out.parent) as made:
            stage = Path(made)
            files = dict(_staged(file, content, stage))
            head = LedgerFile(file.ledger).snapshot(stage / "copied")
            files |= {"ledger": stage / "copied", "ledger.head": stage / "copied.head"}
            ledger = sound_ledger(files["ledger"], files["ledger.key"])
            about = {
                "kind": KIND,
                "site": file.site.name,
                "file": path.name,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "cloister": __version__,
                "seq": head.seq,
                "hash": head.hash,
                "key": ledger.verdict.public_key,
            }
            write_archive(out, about, files)
        exposed = bool(out.stat().st_mode & 0o077)
    except (OSError, ValueError) as error:
        raise bad_file(error, "backed up") from error
    return BackedUp(
        path=out, site=file.site.name, names=tuple(files), ledger=ledger, exposed=exposed
    )


def _staged(file: SiteFile, content: bytes, stage: Path) -> Iterator[tuple[str, Path]]:
    """Copies everything except the ledger, each file at one moment; yields names and copies."""
    found = {"site.toml": content, "ledger.key": _bytes(key_file(file.ledger))}
    found |= _still_there("ledger.units.key", unit_key_file(file.ledger))
    found |= _still_there("ledger.held-out", terms_file(file.ledger))
    for name, folder in folders(file).items():
        for path in _inside(folder):
            if name != "agent" or path.name not in LEFT_OUT:
                found |= _still_there(f"{name}/{path.name}", path)
    for number, (name, held) in enumerate(found.items()):
        copy = stage / str(number)
        copy.write_bytes(held)
        yield name, copy


def folders(file: SiteFile) -> dict[str, Path]:
    """The places of a backup's folders at a site."""
    return {
        "personal": PersonalAdapter.beside(file.ledger, "").folder,
        "federation": SiteMembership.of(file).path,
        "agent": AgentFolder.of(file).own,
        "approvals": file.path.parent / f"{file.site.name}.approvals",
    }


def account_of(name: str) -> int | None:
    """Number of the account whose decisions a backup's member has; None for other members."""
    part, _, inner = name.partition("/")
    found = _OF_ACCOUNT.fullmatch(inner) if part == "approvals" else None
    return int(found[1]) if found else None


def _inside(folder: Path) -> list[Path]:
    """A folder's files, without unfinished ones, whose names begin with a dot."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [path for path in files if path.name[0] != "." and path.suffix != ".lock"]


def _still_there(name: str, path: Path) -> dict[str, bytes]:
    """A file's content; empty if it was removed since it was listed, like an older adapter."""
    try:
        return {name: _bytes(path)}
    except FileNotFoundError:
        return {}


def _bytes(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def place_of(name: str, file: SiteFile) -> Path:
    """The place of a backup's member at a site.

    Raises:
        BadFileError: A site has no member of that name.
    """
    whole = {
        "site.toml": file.path,
        "ledger": file.ledger,
        "ledger.head": file.ledger.with_name(file.ledger.name + ".head"),
        "ledger.key": key_file(file.ledger),
        "ledger.units.key": unit_key_file(file.ledger),
        "ledger.held-out": terms_file(file.ledger),
    }
    if name in whole:
        return whole[name]
    part, _, inner = name.partition("/")
    places = folders(file)
    if part not in places or not inner or "/" in inner:
        raise BadFileError(
            f"{name}: not a file of a site of cloister {__version__}; restore with the version "
            "that made the backup"
        )
    return places[part] / inner
