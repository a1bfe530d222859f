"""Everything that a site owns in one file: its `site.toml`, ledger, keys, membership and notes.

site.toml        as it is
ledger           with the bytes of every release, so that each is sent again as it was
ledger.head      where it ends
ledger.key       the site's signing key
personal/        what the site keeps of its adapters (`client.personal`)
federation/      node key, papers, the coordinator's pinned authority and key
agent/           the agent's notes: refusals and proofs
approvals/       what each account decided on studies, `UID.jsonl`

Left out are the records, the base, logs, documents of studies that ask again, what a service makes
anew at its start, and the final adapters of finished studies: they are large, and the coordinator
has them. Copy the folders that `cloister site status` names, or ask for them again.
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
from cloister.ledger.verify import Verdict, verify

KIND = "site"
# The agent's notes of what it does now, and of which records; it writes them anew.
LEFT_OUT = frozenset({"agent.json", "records.json", "study.json", "reload"})
# A file of approvals counts only where the account of that number owns it.
_OF_ACCOUNT = re.compile(r"(\d{1,10})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A ledger that was checked from its first entry to the bytes of its last release.

    Attributes:
        verdict: What it says.
        entries: All of it, oldest first.
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
        LedgerError: Chain, signatures, budget or head do not hold, the key is another, or the bytes
            of a release are not those that its entry names.
    """
    file = LedgerFile(path)
    entries = file.entries()
    verdict = verify(entries, str(path), public_key=public_hex(load_key(key)))
    released = {entry.seq: entry.sha256 for entry in verdict.history.released.values()}
    kept = {seq: sha256(content).hexdigest() for seq, content in file.payloads()}
    if kept != released:
        damaged = sorted(seq for seq in kept | released if kept.get(seq) != released.get(seq))
        raise LedgerError(f"{path}: the bytes of release {damaged[0]} are missing or others")
    return Sound(verdict=verdict, entries=entries)


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """The contents of a backup.

    Attributes:
        path: The file.
        site: The site's name.
        names: Of what is in it.
        ledger: The ledger's state.
        exposed: Whether others may read the file all the same, on a file system without rights.
    """

    path: Path
    site: str
    names: tuple[str, ...]
    ledger: Sound
    exposed: bool


def back_up(site: Path, out: Path | None = None) -> BackedUp:
    """Writes a site's backup, whole or not at all, readable by its owner alone.

    Args:
        site: `site.toml`, or the folder in which it lies.
        out: The backup's file; None: NAME.backup.tar in the present folder.

    Raises:
        UsageError: The file is there already.
        BadFileError: `site.toml` cannot be read, or the backup not be written.
        LedgerError: The ledger was not begun, or is not sound.

    Guarantees:
        The site may run meanwhile. The ledger is copied between two entries; whatever else is
        copied was there before, so no kept adapter is of a round that the copy did not charge.
    """
    path = site / "site.toml" if site.is_dir() else site
    content = site_bytes(path)
    file = site_of(path, content)
    out = out or Path(f"{file.site.name}.backup.tar")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: is there already and is not written over; name another file")
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
    """Copies all but the ledger, each as it was at one moment; names and copies."""
    found = {"site.toml": content, "ledger.key": _bytes(key_file(file.ledger))}
    for name, folder in folders(file).items():
        for path in _inside(folder):
            if name != "agent" or path.name not in LEFT_OUT:
                found |= _still_there(f"{name}/{path.name}", path)
    for number, (name, held) in enumerate(found.items()):
        copy = stage / str(number)
        copy.write_bytes(held)
        yield name, copy


def folders(file: SiteFile) -> dict[str, Path]:
    """Where the folders of a backup lie at a site."""
    return {
        "personal": PersonalAdapter.beside(file.ledger, "").folder,
        "federation": SiteMembership.of(file).path,
        "agent": AgentFolder.of(file).own,
        "approvals": file.path.parent / f"{file.site.name}.approvals",
    }


def account_of(name: str) -> int | None:
    """Number of the account whose decisions something of a backup holds; None for anything else."""
    part, _, inner = name.partition("/")
    found = _OF_ACCOUNT.fullmatch(inner) if part == "approvals" else None
    return int(found[1]) if found else None


def _inside(folder: Path) -> list[Path]:
    """A folder's files; what is being written has a name that begins with a dot."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [path for path in files if path.name[0] != "." and path.suffix != ".lock"]


def _still_there(name: str, path: Path) -> dict[str, bytes]:
    """A file's content; none where it went since it was listed, as an older adapter does."""
    try:
        return {name: _bytes(path)}
    except FileNotFoundError:
        return {}


def _bytes(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def place_of(name: str, file: SiteFile) -> Path:
    """Where something of a backup belongs at a site.

    Raises:
        BadFileError: Nothing of that name is a site's.
    """
    whole = {
        "site.toml": file.path,
        "ledger": file.ledger,
        "ledger.head": file.ledger.with_name(file.ledger.name + ".head"),
        "ledger.key": key_file(file.ledger),
    }
    if name in whole:
        return whole[name]
    part, _, inner = name.partition("/")
    places = folders(file)
    if part not in places or not inner or "/" in inner:
        raise BadFileError(
            f"{name}: nothing that a site of cloister {__version__} owns; restore by the version "
            "that made the backup"
        )
    return places[part] / inner
