"""No acknowledged ledger entry is lost in a power cut, whatever the disk had stored.

The same cuts lose entries with every weaker setting of SQLite's `synchronous`: they can be seen.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from cloister.errors import LedgerError, RoundSpentError
from cloister.ledger.chain import Head
from cloister.ledger.charge import Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import create_key
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.units import Unit
from tests.support.ledgers import WIDE, charge, reserved
from tests.support.power_cut import Disk, simulated_disk

ROUNDS = 2
# Each operation once, and every night over and over with other survivors.
CUTS = [1, pytest.param(600, marks=pytest.mark.nightly)]


def payload(number: int) -> bytes:
    """More than a page."""
    return f"bytes {number} ".encode() * 700


class Site:
    """A ledger on a disk, and what it acknowledged."""

    def __init__(self, disk: Disk, key: Path) -> None:
        self.disk = disk
        self.path = disk.folder / "site.ledger"
        self.key = key
        self.begun = False
        self.reserved: list[int] = []
        self.released: list[int] = []
        self.head: Head | None = None

    def open(self) -> Ledger:
        return Ledger(self.path, key=self.key, vfs=self.disk.name, clock=lambda: "now")

    def run(self) -> None:
        """A ledger's first rounds; ends with LedgerError where the power goes."""
        ledger = Ledger.create(
            self.path, WIDE, Unit.RECORD, key=self.key, vfs=self.disk.name, clock=lambda: "now"
        )
        self.begun, self.head = True, ledger.head
        for number in range(1, ROUNDS + 1):
            self.round(ledger, number)

    def round(self, ledger: Ledger, number: int) -> None:
        reservation = reserved(ledger, number)
        self.reserved.append(number)
        self.head = ledger.head
        reservation.release(payload(number))
        self.released.append(number)
        self.head = ledger.head

    def reopened(self) -> Ledger | None:
        """The ledger after a cut, perhaps with a second cut while it recovers.

        Raises:
            LedgerError: It was begun and does not open.
        """
        self.disk.restore_power(cut_at=self.disk.draw.choice([None, 1, 2, 3, 4, 5, 8]))
        for _ in range(2):
            try:
                ledger = self.open()
                break
            except LedgerError:
                if not self.disk.dead:
                    if self.begun:
                        raise
                    return None
                self.disk.restore_power()
        self.disk.cut_at = None
        return ledger

    def check(self, ledger: Ledger) -> None:
        """Everything acknowledged is there, and at most one entry that was under way."""
        entries = LedgerFile(self.path, self.disk.name).entries()
        acknowledged = self.begun + len(self.reserved) + len(self.released)
        assert acknowledged <= len(entries) <= acknowledged + 1
        verdict = verify(entries, "it", anchors=[self.head] if self.head else [])
        assert ledger.steps == verdict.steps == 5 * verdict.charges
        for number in self.released:
            again = ledger.reserve(charge(number))
            assert isinstance(again, Released)
            assert again.payload == payload(number)
        for number in set(self.reserved) - set(self.released):
            try:
                late = ledger.reserve(charge(number))
            except RoundSpentError:
                continue
            assert isinstance(late, Released)  # its release was under way, and is whole
            assert late.payload == payload(number)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    create_key(path)
    return path


@pytest.fixture
def site(key: Path) -> Iterator[Site]:
    with simulated_disk() as disk:
        yield Site(disk, key)


def operations(key: Path) -> int:
    """How many operations a run makes where the power stays."""
    with simulated_disk() as disk:
        Site(disk, key).run()
        return len(disk.operations)


def after_a_cut(key: Path, cut_at: int, seed: int) -> None:
    """One run that loses power.

    Raises:
        LedgerError: The ledger does not open again.
        AssertionError: It lost something.
    """
    with simulated_disk(seed) as disk:
        site = Site(disk, key)
        disk.cut_at = cut_at
        with pytest.raises(LedgerError):
            site.run()
        assert disk.dead
        ledger = site.reopened()
        if ledger is None:
            return
        site.check(ledger)
        site.round(ledger, 9)
        site.disk.restore_power()
        site.check(site.open())


def every_cut(key: Path, at_least: int) -> Iterator[tuple[int, int]]:
    """A cut before each operation, over and over with other survivors."""
    count = operations(key)
    for seed in range(-(-at_least // count)):
        for cut_at in range(1, count + 1):
            yield cut_at, seed * 10_000 + cut_at


@pytest.mark.parametrize("at_least", CUTS)
def test_no_power_cut_loses_what_was_acknowledged(key: Path, at_least: int) -> None:
    cuts = 0
    for cut_at, seed in every_cut(key, at_least):
        try:
            after_a_cut(key, cut_at, seed)
        except (LedgerError, AssertionError) as error:
            raise AssertionError(f"cut before operation {cut_at}, seed {seed}") from error
        cuts += 1
    assert cuts >= max(at_least, operations(key))


def loses(key: Path) -> bool:
    """Whether there is a cut after which something acknowledged is gone."""
    for cut_at, seed in every_cut(key, 250):
        try:
            after_a_cut(key, cut_at, seed)
        except (LedgerError, AssertionError):
            return True
    return False


@pytest.mark.parametrize("level", ["FULL", "NORMAL", "OFF"])
def test_the_same_cuts_find_a_weaker_setting_out(
    key: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = LedgerFile._connect

    def weaker(self: LedgerFile, flags: int) -> apsw.Connection:
        connection = connect(self, flags)
        connection.execute(f"PRAGMA synchronous={level}")
        return connection

    monkeypatch.setattr(LedgerFile, "_connect", weaker)
    assert loses(key)


def test_the_same_cuts_find_a_head_that_is_not_synced(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "fsync", lambda self, descriptor: None)
    assert loses(key)


KINDS = ["create", "write", "sync", "remove", "sync folder", "sync head", "read"]
FAULTS = {
    "no space": lambda: apsw.FullError("database or disk is full"),
    "input or output error": lambda: apsw.IOError("disk I/O error"),
}


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "once"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_drawn_on_a_disk_that_fails(
    site: Site, kind: str, fault: str, lasting: bool
) -> None:
    disk = site.disk
    site.run()
    ledger = site.open()
    number = 10
    for spot in range(100):  # the first, second… operation of its kind fails
        left = [spot]

        def fail(found: str, left: list[int] = left) -> None:
            if found == kind:
                left[0] -= 1
                if left[0] == -1 or (lasting and left[0] < 0):
                    raise FAULTS[fault]()

        charged, number = ledger.steps, number + 1
        disk.fault = fail
        granted = None
        try:
            granted = ledger.reserve(charge(number))
        except LedgerError:
            assert left[0] < 0
        disk.fault = lambda found: None
        opened = site.open()
        assert charged <= opened.steps <= charged + 5
        if granted is not None:
            assert opened.steps == charged + 5
            assert isinstance(granted, Reservation)
            granted.release(payload(number))
            site.reserved.append(number)
            site.released.append(number)
        try:  # the same round again: cut off, or as if it had never been asked
            again = ledger.reserve(charge(number))
        except RoundSpentError:
            assert granted is None
            assert opened.steps == charged + 5
        else:
            assert isinstance(again, Released if granted else Reservation)
        assert ledger.steps == site.open().steps == charged + 5
        if left[0] >= 0:
            break
    else:
        pytest.fail("there was no end of operations")
    entries = LedgerFile(site.path, disk.name).entries()
    verify(entries, "it")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_on_a_disk_that_fails(site: Site, kind: str) -> None:
    disk = site.disk
    site.run()
    for spot in range(100):
        number = 20 + spot
        reservation = reserved(site.open(), number)
        left = [spot]

        def fail(found: str, left: list[int] = left) -> None:
            if found == kind:
                left[0] -= 1
                if left[0] < 0:
                    raise apsw.FullError("database or disk is full")

        disk.fault = fail
        released = None
        try:
            released = reservation.release(payload(number))
        except LedgerError:
            assert left[0] < 0
        disk.fault = lambda found: None
        try:
            again = site.open().reserve(charge(number))
            assert isinstance(again, Released)
            assert again.payload == payload(number)
        except RoundSpentError:
            assert released is None
        if left[0] >= 0:
            assert released is not None
            break
    else:
        pytest.fail("there was no end of operations")


def test_a_disk_that_fails_as_a_ledger_begins_leaves_none_or_a_new_one(key: Path) -> None:
    for kind in ("create", "write", "sync", "sync folder", "sync head"):
        with simulated_disk() as disk:
            site = Site(disk, key)

            def fail(found: str, kind: str = kind) -> None:
                if found == kind:
                    raise apsw.FullError("database or disk is full")

            disk.fault = fail
            with pytest.raises(LedgerError):
                site.run()
            disk.fault = lambda found: None
            try:
                assert site.open().steps == 0
            except LedgerError as error:
                assert re.search("no ledger here|not a ledger", str(error))  # noqa: PT017


def test_a_file_that_may_only_be_read_is_read_and_grants_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    ledger = site.open()
    opened = Disk.xOpen

    def read_only(self: Disk, name: object, flags: list[int]) -> object:
        file = opened(self, name, flags)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            flags[1] = flags[0] & ~apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_READONLY
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "xOpen", read_only)
        with pytest.raises(LedgerError):
            ledger.reserve(charge(5))
        assert site.open().steps == 5 * ROUNDS
    site.round(ledger, 5)


def test_a_folder_without_room_for_a_lock_grants_nothing(site: Site) -> None:
    site.run()
    ledger = site.open()
    lock = site.path.with_name(site.path.name + ".lock")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(LedgerError):
        ledger.reserve(charge(5))
    assert site.open().steps == 5 * ROUNDS
    lock.rmdir()
    site.round(ledger, 5)


def test_a_head_that_cannot_be_written_spends_the_round_and_grants_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    ledger = site.open()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.reserve(charge(5))
    with pytest.raises(RoundSpentError):
        ledger.reserve(charge(5))
    assert ledger.steps == site.open().steps == 5 * (ROUNDS + 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_permissions_that_forbid_writing_grant_nothing(tmp_path: Path, what: str) -> None:
    path = tmp_path / "deep" / "site.ledger"
    ledger = Ledger.create(path, WIDE, Unit.RECORD)
    target = path if what == "file" else path.parent
    target.chmod(0o500)
    try:
        with pytest.raises(LedgerError):
            ledger.reserve(charge(1))
        assert Ledger(path).steps == 0
    finally:
        target.chmod(0o700)
    reserved(ledger, 1)
