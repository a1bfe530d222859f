"""A site from its backup: all of it or nothing, and never over a site that is there.

Everything is checked before anything is written. Then it is written to a folder beside the place,
`.NAME.restoring`, the ledger is checked there as a whole, and the folder gets its name: one step,
before which there is no site and after which there is all of it.

A ledger that `site.toml` keeps elsewhere is put there first, its head before itself, so that a
crash in between leaves what every command refuses and the next restore takes up.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.archive import Archive, opened_archive
from cloister.client.living_site import (
    check_heads,
    check_place,
    has_living_ledger,
    is_inside,
    real,
    refuse_living,
)
from cloister.client.site_backup import KIND, Sound, folders, place_of, sound_ledger
from cloister.client.site_file import SiteFile, read_site, site_of
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.files import bad_file, sync_folder
from cloister.names import is_name
from cloister.owner_only import private_folder
from cloister.privacy.anchor import Anchor
from cloister.toml_text import MOST_BYTES

# Bytes left free beside what is restored: names, and the ledger's next entries.
SPARE = 2**24
_ABOUT = {"kind": str, "site": str, "file": str, "made": str, "seq": int, "hash": str, "key": str}


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A site that is back.

    Attributes:
        file: Its `site.toml`.
        made: When the backup was made, by its own account.
        ledger: Its ledger's state.
        kept: Whether a ledger was there that goes on from the backup's, and was kept.
    """

    file: SiteFile
    made: str
    ledger: Sound
    kept: bool


def restore(
    backup: Path,
    folder: Path | None = None,
    *,
    ledger: Path | None = None,
    seen: Anchor | None = None,
) -> Restored:
    """Makes a site from its backup.

    Args:
        backup: What `back_up` wrote.
        folder: Where; it must not be there, or be empty. None: the site's name, in the present one.
        ledger: Where `site.toml` keeps the ledger, where that is outside of the folder: whoever
            restores names it, so that no file alone says what is written elsewhere.
        seen: The ledger's head as somebody else kept it: a backup that lacks it is too old.

    Raises:
        UsageError: Something is there, or the ledger's place was not named.
        BadFileError: The backup is damaged, or the site cannot be written.
        LedgerError: The backup's ledger is not sound, older than `seen`, or another is there.

    Guarantees:
        Nothing is written before every byte of the backup was checked, nothing over what is there,
        and no ledger in the place of a longer one of the same key.
    """
    with opened_archive(backup) as archive:
        about = _about(archive)
        target = (folder or Path(about["site"])).expanduser()
        refuse_living(target, about)
        target = Path(os.path.realpath(target))
        file = site_of(target / about["file"], archive.read("site.toml", MOST_BYTES))
        if file.site.name != about["site"]:
            raise BadFileError(f"{backup}: its site.toml is of {file.site.name}; take another")
        check_place(file, ledger)
        kept = has_living_ledger(file, about)
        elsewhere = nullcontext(None) if is_inside(file) else _staging(real(file.ledger))
        with _staging(target) as stage, elsewhere as aside:
            staged = _staged(archive, file, stage, aside)
            sound = sound_ledger(staged["ledger"], staged["ledger.key"])
            check_heads(sound, about, seen, backup)
            _give_to_agent(file, stage, aside)
            if aside is not None and not kept:
                _put_ledger(file, staged)
            (stage / "site").replace(target)  # over an empty folder too
            sync_folder(target.parent)
        found = read_site(file.path)
        if kept:
            sound = sound_ledger(found.ledger, place_of("ledger.key", found))
        return Restored(file=found, made=about["made"], ledger=sound, kept=kept)


def _about(archive: Archive) -> Mapping[str, Any]:
    """What the backup says of itself."""
    about = archive.about
    sound = all(type(about.get(name)) is kind for name, kind in _ABOUT.items())
    if not sound or about["kind"] != KIND or not all(is_name(about[n]) for n in ("site", "file")):
        raise BadFileError(f"{archive.path}: no backup of a site; cloister site backup makes one")
    return about


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A private folder beside a place, for one restore at a time; gone at the end.

    Raises:
        UsageError: Another restore is at it.
        BadFileError: It cannot be written.
    """
    stage = target.parent / f".{target.name}.restoring"
    try:
        private_folder(stage)
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise bad_file(error, "restored") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{target}: is being restored by another process") from error
    try:
        _empty(stage)  # of what a restore left that was killed
        yield stage
    except (OSError, ValueError) as error:
        raise bad_file(error, "restored") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _staged(archive: Archive, file: SiteFile, stage: Path, aside: Path | None) -> dict[str, Path]:
    """Unpacks an archive as it will lie; names and places.

    Args:
        archive: The backup.
        file: The site's, as it will be.
        stage: For the site's folder, as `site` in it.
        aside: For the ledger and what lies beside it, where that is elsewhere.
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
            raise BadFileError(f"{archive.path}: holds no {needed}; it is no site's backup")
    for place in {stage, aside} - {None}:
        free = shutil.disk_usage(place or stage).free
        if free < archive.size + SPARE:
            raise BadFileError(
                f"{stage.parent}: {free:,} bytes are free and {archive.size + SPARE:,} are "
                "needed; make room, then restore again"
            )
    tops = [top for top in (stage, aside) if top is not None]
    made = {folder for place in places.values() for folder in place.parents
            if any(folder.is_relative_to(top) for top in tops)}  # fmt: skip
    for folder in sorted(made):
        private_folder(folder)
    archive.unpack(places)
    for folder in made:
        sync_folder(folder)
    return places


def _give_to_agent(file: SiteFile, *stages: Path | None) -> None:
    """Gives the files to the user whom the agent runs as, but for the node's key and papers.

    Raises:
        UsageError: This machine has no such user.
    """
    if file.site.agent_user is None or os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(file.site.agent_user).pw_uid
    except KeyError as error:
        raise UsageError(
            f"site.agent_user: this machine has no user {file.site.agent_user!r}; make it first"
        ) from error
    own = folders(file)["federation"].name
    for stage in stages:
        for path in stage.rglob("*") if stage else ():
            if own not in path.parts:
                os.chown(path, user, -1)


def _put_ledger(file: SiteFile, staged: Mapping[str, Path]) -> None:
    """Moves the ledger to where `site.toml` keeps it: the head first, the ledger last.

    Raises:
        LedgerError: Something else is there already.
    """
    names = sorted(name for name in staged if name.startswith("personal/"))
    for name in ("ledger.head", "ledger.key", *names, "ledger"):
        final, source = real(place_of(name, file)), staged[name]
        if os.path.lexists(final):
            if final.is_file() and filecmp.cmp(source, final, shallow=False):
                continue  # put there by a restore that was killed
            raise LedgerError(
                f"{final}: is there already and another; it is not written over: find out whose "
                "it is, and move it away"
            )
        if not final.parent.is_dir():
            private_folder(final.parent)
        source.replace(final)
        sync_folder(final.parent)
