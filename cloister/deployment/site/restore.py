"""Restores a site from its backup: whole or not at all, and never over an existing site.

Everything is checked before anything is written. Then it is written to `.NAME.restoring` beside the
target, the ledger is checked there, and the folder gets its name in one step: before it there is no
site, after it a complete one.

A ledger that `site.toml` keeps elsewhere is moved there first, its head before itself. After a
crash in between every command refuses the rest, and the next restore continues with it.
"""

from __future__ import annotations

import filecmp
import os
import pwd
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.archive import Archive, opened_archive
from cloister.client.site_file import SiteFile, read_site, site_of
from cloister.deployment.site.backup import KIND, Sound, account_of, folders, place_of, sound_ledger
from cloister.deployment.site.living_site import (
    check_own_head,
    check_place,
    check_seen,
    has_living_ledger,
    is_inside,
    real,
    refuse_living,
)
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.files import sync_folder
from cloister.ledger.anchor import Anchor
from cloister.ledger.ledger import key_file
from cloister.names import is_name
from cloister.owner_only import private_folder
from cloister.staging import staging
from cloister.toml_text import MOST_BYTES

# Bytes to leave free besides the restored files: for names, and the ledger's next entries.
SPARE = 2**24
_ABOUT = {"kind": str, "site": str, "file": str, "made": str, "seq": int, "hash": str, "key": str}


@dataclass(frozen=True, kw_only=True)
class Restored:
    """The result of restoring a site from its backup.

    Attributes:
        file: Its `site.toml`.
        made: The time at which the backup says it was made.
        ledger: Its ledger's state.
        kept: Whether an existing ledger that continues the backup's was kept.
        strangers: Files of approvals whose account differs from the restoring one, with its number.
    """

    file: SiteFile
    made: str
    ledger: Sound
    kept: bool
    strangers: Mapping[Path, int]


def restore(
    backup: Path,
    folder: Path | None = None,
    *,
    ledger: Path | None = None,
    seen: Anchor | None = None,
) -> Restored:
    """Restores a site's files from its backup.

    Args:
        backup: The file that `back_up` wrote.
        folder: The target, new or empty. None: the site's name, in the present folder.
        ledger: The ledger's path if `site.toml` keeps it outside of the folder. The caller names
            it, so that a file alone cannot decide what is written elsewhere.
        seen: A head of the ledger that somebody else kept; a backup without it is too old.

    Raises:
        UsageError: The target is not empty, or the ledger's place was not named.
        BadFileError: The backup is damaged, or the site cannot be written.
        LedgerError: The backup's ledger is invalid or older than `seen`, or another ledger exists.

    Guarantees:
        Nothing is written before every byte of the backup was checked, nothing is overwritten, and
        no ledger replaces a longer one of the same key.
    """
    with opened_archive(backup) as archive:
        about = _about(archive)
        target = (folder or Path(about["site"])).expanduser()
        refuse_living(target, about)
        target = Path(os.path.realpath(target))
        file = site_of(target / about["file"], archive.read("site.toml", MOST_BYTES))
        if file.site.name != about["site"]:
            raise BadFileError(
                f"{backup}: its site.toml is that of {file.site.name}; use another backup"
            )
        check_place(file, ledger)
        kept = has_living_ledger(file, about)
        elsewhere = nullcontext(None) if is_inside(file) else staging(real(file.ledger))
        with staging(target) as stage, elsewhere as aside:
            staged = _staged(archive, file, stage, aside)
            sound = sound_ledger(staged["ledger"], staged["ledger.key"])
            check_own_head(sound, about, backup)
            if kept:
                living = real(file.ledger)
                sound = sound_ledger(living, key_file(living))
            if seen is not None:
                check_seen(sound, seen, backup)
            strangers = _give_away(file, staged, stage, aside)
            if aside is not None and not kept:
                _put_ledger(file, staged)
            (stage / "site").replace(target)  # over an empty folder too
            sync_folder(target.parent)
        return Restored(
            file=read_site(file.path),
            made=about["made"],
            ledger=sound,
            kept=kept,
            strangers=strangers,
        )


def _about(archive: Archive) -> Mapping[str, Any]:
    """Reads the backup's description of itself."""
    about = archive.about
    sound = all(type(about.get(name)) is kind for name, kind in _ABOUT.items())
    if not sound or about["kind"] != KIND or not all(is_name(about[n]) for n in ("site", "file")):
        raise BadFileError(
            f"{archive.path}: not a backup of a site; cloister site backup makes one"
        )
    return about


def _staged(archive: Archive, file: SiteFile, stage: Path, aside: Path | None) -> dict[str, Path]:
    """Unpacks an archive into its final layout; returns names and places.

    Args:
        archive: The backup.
        file: The site's, as it will be.
        stage: Folder in which `site` becomes the site's folder.
        aside: Folder for the ledger and the files beside it, if they are elsewhere.
    """
    places = {}
    for member in archive.members:
        final = real(place_of(member.name, file))
        goes_aside = aside is not None and member.name.startswith(("ledger", "personal/"))
        root, place = (file.ledger, aside) if goes_aside else (file.path, stage / "site")
        assert place is not None
        places[member.name] = place / final.relative_to(real(root).parent)
    for needed in ("ledger", "ledger.head", "ledger.key"):
        if needed not in places:
            raise BadFileError(
                f"{archive.path}: has no {needed}, so it is not a site's backup; use another"
            )
    for place in {stage, aside} - {None}:
        free = shutil.disk_usage(place or stage).free
        if free < archive.size + SPARE:
            raise BadFileError(
                f"{stage.parent}: {free:,} bytes are free, but {archive.size + SPARE:,} are "
                "needed; free some space, then restore again"
            )
    tops = [top for top in (stage, aside) if top is not None]
    made = {
        folder
        for place in places.values()
        for folder in place.parents
        if any(folder.is_relative_to(top) for top in tops)
    }
    for folder in sorted(made):
        private_folder(folder)
    archive.unpack(places)
    for name, place in places.items():  # the agent's own user reads the coordinator's public key
        if name.startswith("federation/") and place.suffix != ".key":
            place.chmod(0o644)
    for folder in made:
        sync_folder(folder)
    return places


def _give_away(
    file: SiteFile, staged: Mapping[str, Path], *stages: Path | None
) -> Mapping[Path, int]:
    """Gives files to their owners, as root can: to the agent's user, and decisions to accounts.

    The agent does not get the node's key and documents, or the decisions, which it only reads.

    Returns:
        Files of decisions that could not be given to their account, with its number. Until they
        are, the site approves nothing.

    Raises:
        UsageError: This machine has no such user.
    """
    agent, is_root = _agent(file), os.geteuid() == 0
    spared = {folders(file)[part].name for part in ("federation", "approvals")}
    if agent is not None:
        for stage in stages:
            if stage is None:
                continue
            for path in stage.rglob("*"):
                if not spared & set(path.relative_to(stage).parts):
                    os.chown(path, agent.pw_uid, -1)
    left = {}
    for name, place in staged.items():
        account = account_of(name)
        if account is not None and account != os.geteuid():
            if is_root:
                os.chown(place, account, -1)
            else:
                left[place_of(name, file)] = account
        if account is not None and agent is not None:  # as `deployment.site.service` shares it
            for path, mode in ((place, 0o640), (place.parent, 0o2750)):
                os.chown(path, -1, agent.pw_gid)
                path.chmod(mode)
    return left


def _agent(file: SiteFile) -> pwd.struct_passwd | None:
    """The agent's user, if the agent has its own and root restores; else None."""
    if file.site.agent_user is None or os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(file.site.agent_user)
    except KeyError as error:
        raise UsageError(
            f"site.agent_user: this machine has no user {file.site.agent_user!r}; make it first"
        ) from error


def _put_ledger(file: SiteFile, staged: Mapping[str, Path]) -> None:
    """Moves the ledger to where `site.toml` keeps it: the head first, the ledger last.

    Raises:
        LedgerError: Something else exists there already.
    """
    names = sorted(name for name in staged if name.startswith("personal/"))
    units = [name for name in ("ledger.units.key", "ledger.held-out") if name in staged]
    for name in ("ledger.head", "ledger.key", *units, *names, "ledger"):
        final, source = real(place_of(name, file)), staged[name]
        if os.path.lexists(final):
            if final.is_file() and filecmp.cmp(source, final, shallow=False):
                continue  # from a restore that was killed
            raise LedgerError(
                f"{final}: exists already with other content, and is not overwritten; find out "
                "whose it is, and move it away"
            )
        if not final.parent.is_dir():
            private_folder(final.parent)
        source.replace(final)
        sync_folder(final.parent)
