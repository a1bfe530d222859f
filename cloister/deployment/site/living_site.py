"""Refuses to restore over an existing site, or a ledger that is older than a seen one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloister.client.site_file import SiteFile, read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.backup import Sound
from cloister.errors import CloisterError, LedgerError, UsageError
from cloister.ledger.anchor import Anchor
from cloister.ledger.chain import Head, check_anchor
from cloister.ledger.local_disk import refuse_network_file_system
from cloister.ledger.storage import LedgerFile


def refuse_living(target: Path, about: Mapping[str, Any]) -> None:
    """Refuses a folder that is not empty; compares a site in it with the backup.

    Args:
        target: The folder.
        about: The backup's description of itself.

    Raises:
        UsageError: The folder is not empty.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(f"{target}: exists already and is not a folder; name another")
    if not any(target.iterdir()):
        return
    why = f"{target}: is not empty"
    with suppress(CloisterError, OSError):
        why = f"{target}: {_compared(read_site(target / about['file']), about)}"
    raise UsageError(
        f"{why}; nothing is overwritten: name another folder, or move this one away (restore its "
        "records by hand: they are in no backup)"
    )


def _compared(there: SiteFile, about: Mapping[str, Any]) -> str:
    running = AgentFolder.of(there).running()
    if running is not None:
        return f"has a site that is running (process {running['pid']})"
    entries = LedgerFile(there.ledger).entries()
    if not entries or entries[0].fields["key"] != about["key"]:
        return "has another site"
    count, backed_up = len(entries), about["seq"] + 1
    if count > backed_up:
        return (
            f"has this site, whose ledger has {count:,} entries and the backup's only "
            f"{backed_up:,}: restoring it would roll back what was spent; keep this one"
        )
    return f"has this site, with {count:,} of the backup's {backed_up:,} ledger entries"


def is_inside(file: SiteFile) -> bool:
    """Whether the ledger is in the folder of `site.toml`."""
    return real(file.ledger).is_relative_to(file.path.parent)


def real(path: Path) -> Path:
    """The real path that a file will have once its folders exist, with existing links followed.

    The system cannot resolve `ward/../x` while there is no `ward`.
    """
    return Path(os.path.realpath(path.parent)) / path.name


def check_place(file: SiteFile, named: Path | None) -> None:
    """Checks that the ledger's place is in the folder, or was named on the command line.

    Raises:
        UsageError: It is neither.
        LedgerError: It is on a network file system.
    """
    place = real(file.ledger)
    if named is not None and real(named.expanduser().absolute()) != place:
        raise UsageError(f"--ledger: {named} given, but this site's site.toml has it at {place}")
    if named is None and not is_inside(file):
        raise UsageError(
            "site.toml has the ledger outside of the site's folder; confirm that it may be written "
            f"there: --ledger {place}"
        )
    refuse_network_file_system(place)


def has_living_ledger(file: SiteFile, about: Mapping[str, Any]) -> bool:
    """Whether a ledger outside of the folder continues the backup's ledger.

    Raises:
        LedgerError: The ledger there does not continue it, or is invalid.
    """
    place = real(file.ledger)
    if is_inside(file) or not os.path.lexists(place):
        return False
    entries = LedgerFile(place).entries()
    if len(entries) > about["seq"] and entries[about["seq"]].hash == about["hash"]:
        return True
    raise LedgerError(
        f"{place}: has a ledger that does not continue the backup's entry "
        f"{about['seq']}, and it is not overwritten: find out which of the two is newer; "
        "if it is the backup's, move this one away"
    )


def check_own_head(sound: Sound, about: Mapping[str, Any], backup: Path) -> None:
    """Checks that a backup's ledger ends where the backup says.

    Raises:
        LedgerError: It does not, or belongs to another site.
    """
    verdict = sound.verdict
    if (verdict.head, verdict.public_key) != (Head(about["seq"], about["hash"]), about["key"]):
        raise LedgerError(
            f"{backup}: its ledger is not the one in its manifest; use another backup"
        )


def check_seen(sound: Sound, seen: Anchor, backup: Path) -> None:
    """Checks that a ledger has the head that others saw.

    Args:
        sound: The ledger to restore.
        seen: A head that somebody else kept.
        backup: The backup's path, for messages.

    Raises:
        LedgerError: The seen head is later or different, or belongs to another site.
    """
    head = sound.verdict.head
    if seen.key != sound.verdict.public_key:
        raise LedgerError(f"{backup}: the given head is that of another site's ledger")
    if seen.head.seq > head.seq:
        raise LedgerError(
            f"{backup}: its ledger ends at entry {head.seq}, but entry {seen.head.seq} exists: "
            "restoring it would roll back what was spent; use a later backup"
        )
    check_anchor(sound.entries, seen.head, str(backup))
