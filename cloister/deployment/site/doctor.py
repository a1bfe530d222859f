"""Checks whether a site can take part; each check has a verdict and, if it fails, a remedy.

This file has the checks of the machine and of the files beside `site.toml`; the checks of the
records and of a study are in their own files.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import apsw
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cloister.client.site_file import SiteFile
from cloister.deployment.enrolment.coordinator_key import key_fingerprint
from cloister.deployment.site.checks import CheckLevel, Outcome, run_check
from cloister.deployment.site.connectivity import reach
from cloister.deployment.site.doctor_data import DataCheck
from cloister.deployment.site.doctor_rights import rights
from cloister.deployment.site.doctor_study import study_checks
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import is_begun, open_ledger
from cloister.deployment.site.trusted_key import trusted_coordinator
from cloister.errors import CloisterError
from cloister.ledger.ledger import key_file
from cloister.ledger.local_disk import refuse_network_file_system
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.recipe import Recipe

# Room for a ledger's messages and a checkpoint; a message is at most 20 MB by default.
FREE_BYTES = 2**30
# A ledger syncs twice per round; above this a round waits for the disk, not for training.
SLOW_SYNC = 1.0
# SQLite before it may corrupt a file when two connections reset its log.
SQLITE = (3, 51, 3)
NOT_BEGUN = "not begun yet, so there is no key and no time"


def examine(file: SiteFile, recipe: Recipe | None) -> Iterator[Outcome]:
    """Makes every check; the checks of a study only if one is given.

    Args:
        file: The site's.
        recipe: Recipe of a study to join; None: no study.
    """
    checks: list[tuple[str, Callable[[], Outcome]]] = [
        ("python", _python),
        ("packages", _packages),
        ("randomness", _randomness),
        ("device", lambda: _device(file)),
        ("sqlite", _sqlite),
        ("disk space", lambda: _disk_space(file)),
        ("disk sync", lambda: _disk_sync(file)),
        ("file system", lambda: _file_system(file)),
        ("rights", lambda: rights(file)),  # before the ledger is opened, which closes it
    ]
    for name, check in checks:
        yield run_check(name, check)
    yield from _ledger_checks(file)
    data = DataCheck(file)
    yield run_check("data", data)
    if SiteMembership.of(file).path.exists():
        yield from _network(SiteMembership.of(file))
    if SiteMembership.of(file).is_welcome():
        yield run_check("coordinator's key", lambda: _coordinator(file))
    if recipe is not None and data.found is not None:
        yield from study_checks(file, recipe, data.found)


def _ledger_checks(file: SiteFile) -> Iterator[Outcome]:
    """Checks the ledger; its key and times only if the ledger exists."""
    ledger = run_check("ledger", lambda: _ledger(file))
    yield ledger
    if ledger.detail != NOT_BEGUN:
        yield run_check("key", lambda: _key(file))
        yield run_check("clock", lambda: _clock(file))


def _network(membership: SiteMembership) -> Iterator[Outcome]:
    try:
        for step in reach(membership):
            level = (
                CheckLevel.PASS
                if step.fine
                else CheckLevel.FAIL
                if step.blocks
                else CheckLevel.WARN
            )
            yield Outcome(f"way: {step.name}", level, step.detail, step.remedy)
    except CloisterError as error:
        yield Outcome(
            "way", CheckLevel.FAIL, str(error), "join again with the coordinator's invite"
        )


def _coordinator(file: SiteFile) -> Outcome:
    known = key_fingerprint(trusted_coordinator(file).key)
    return Outcome(
        "coordinator's key", CheckLevel.PASS, f"answers questions that {known[:17]}… signed for it"
    )


def _python() -> Outcome:
    version, needed = platform.python_version(), metadata.metadata("cloister")["Requires-Python"]
    if not SpecifierSet(needed).contains(version, prereleases=True):
        return Outcome("python", CheckLevel.FAIL, version, f"install Python {needed}")
    return Outcome(
        "python", CheckLevel.PASS, f"{version} on {platform.system()} {platform.machine()}"
    )


def _packages() -> Outcome:
    wrong = []
    for line in metadata.requires("cloister") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = ""
        if not found or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found or 'missing'} ({requirement.specifier})")
    if wrong:
        return Outcome(
            "packages",
            CheckLevel.FAIL,
            ", ".join(wrong),
            "install with the project's constraints.txt",
        )
    return Outcome(
        "packages", CheckLevel.PASS, f"as cloister {metadata.version('cloister')} needs them"
    )


def _randomness() -> Outcome:
    if os.urandom(32) == os.urandom(32):
        return Outcome(
            "randomness",
            CheckLevel.FAIL,
            "the system's random numbers repeat",
            "replace this system",
        )
    return Outcome("randomness", CheckLevel.PASS, "the operating system's")


def _device(file: SiteFile) -> Outcome:
    """Checks the device that the site computes on; this loads torch."""
    from cloister.models.device import device_words, find_device, unused_gpu

    asked = file.machine.device
    words = device_words(find_device(asked))
    if asked is None and unused_gpu():
        found, _, remedy = unused_gpu().partition("; ")
        return Outcome("device", CheckLevel.WARN, f"{words}: {found}", remedy)
    chosen = "as machine.device says" if asked else "chosen by machine.device = auto"
    return Outcome("device", CheckLevel.PASS, f"{words}, {chosen}")


def _sqlite() -> Outcome:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE:
        needed = ".".join(map(str, SQLITE))
        return Outcome(
            "sqlite",
            CheckLevel.FAIL,
            apsw.sqlite_lib_version(),
            f"{needed} is needed: install apsw from its wheel, which includes its own",
        )
    return Outcome("sqlite", CheckLevel.PASS, apsw.sqlite_lib_version())


def _folder(file: SiteFile) -> Path:
    folder = file.ledger.parent
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk_space(file: SiteFile) -> Outcome:
    free = shutil.disk_usage(_folder(file)).free
    detail = f"{free / 2**30:.1f} GiB free beside the ledger"
    if free < FREE_BYTES:
        return Outcome(
            "disk space", CheckLevel.FAIL, detail, "free 1 GiB: a full disk stops a round"
        )
    return Outcome("disk space", CheckLevel.PASS, detail)


def _disk_sync(file: SiteFile) -> Outcome:
    path = _folder(file) / f".doctor.{os.getpid()}"
    started = time.perf_counter()
    try:
        with path.open("wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        path.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    detail = f"{seconds * 1e3:.0f} ms to write and sync beside the ledger"
    if seconds > SLOW_SYNC:
        return Outcome(
            "disk sync", CheckLevel.WARN, detail, "keep the ledger on a faster local disk"
        )
    return Outcome("disk sync", CheckLevel.PASS, detail)


def _file_system(file: SiteFile) -> Outcome:
    refuse_network_file_system(file.ledger)
    return Outcome("file system", CheckLevel.PASS, "local")


def _ledger(file: SiteFile) -> Outcome:
    if not is_begun(file):
        return Outcome(
            "ledger", CheckLevel.FAIL, NOT_BEGUN, f"cloister site init {file.path} begins it"
        )
    open_ledger(file)
    verdict = verify(LedgerFile(file.ledger).entries(), str(file.ledger))
    return Outcome(
        "ledger",
        CheckLevel.PASS,
        f"sound: {verdict.charged} charged, {verdict.of_budget}",
    )


def _key(file: SiteFile) -> Outcome:
    path = key_file(file.ledger)
    if not path.exists():
        return Outcome(
            "key", CheckLevel.FAIL, f"{path.name} is missing", "restore it from its backup"
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Outcome(
            "key",
            CheckLevel.FAIL,
            f"{path.name} is readable by others ({mode:04o})",
            f"chmod 600 {path}",
        )
    return Outcome("key", CheckLevel.PASS, "readable by its owner only")


def _clock(file: SiteFile) -> Outcome:
    from datetime import UTC, datetime

    entries = LedgerFile(file.ledger).entries()
    last = datetime.fromisoformat(str(entries[-1].fields["time"]))
    now = datetime.now(UTC)
    if now < last:
        return Outcome(
            "clock",
            CheckLevel.WARN,
            f"{now:%Y-%m-%d %H:%M} is before the ledger's last entry",
            "set the clock (NTP); certificates and logs use its time",
        )
    return Outcome("clock", CheckLevel.PASS, f"{now:%Y-%m-%d %H:%M} UTC")
