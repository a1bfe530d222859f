"""A process that is killed at any time forgets nothing that it acknowledged."""

import os
import random
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import apsw
import pytest

from cloister.errors import LedgerError, RoundSpentError
from cloister.ledger.charge import Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile, Transaction
from tests.support.ledgers import WIDE, charge, new_ledger, reserved, run_round, small_plan
from tests.support.power_cut import memory_folder

# Quick, and every night.
TRIALS = [60, pytest.param(1000, marks=pytest.mark.nightly)]
ROUNDS = 12  # of one ledger; then the next one begins


def payload(number: int) -> bytes:
    """More than a page."""
    return f"bytes {number} ".encode() * 700


@pytest.fixture(scope="module", autouse=True)
def known_epsilons() -> None:
    """Each ε is computed once, here, and not in every child."""
    with memory_folder() as folder:
        ledger = new_ledger(folder / "warm", WIDE)
        for number in range(1, ROUNDS + 4):
            reserved(ledger, number)


@pytest.fixture
def path() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder / "site.ledger"


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """A child that does some work and tells of it; its process id and the pipe's reading end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            work(writing)
            os.write(writing, b"done\n")
        except BaseException as error:
            os.write(writing, f"failed {error!r}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def ended(child: int, reading: int) -> list[str]:
    """What a child told before it died."""
    told = b""
    while more := os.read(reading, 1 << 16):
        told += more
    os.close(reading)
    os.waitpid(child, 0)
    return told.decode().splitlines()


def rounds(path: Path) -> Callable[[int], None]:
    """Runs a ledger's remaining rounds and acknowledges each step before the next one."""

    def work(pipe: int) -> None:
        ledger = Ledger(path)
        for number in range(ledger.steps // 5 + 1, ROUNDS + 4):
            reservation = reserved(ledger, number)
            os.write(pipe, f"reserved {number}\n".encode())
            reservation.release(payload(number))
            os.write(pipe, f"released {number}\n".encode())

    return work


def check(path: Path, acknowledged: set[str]) -> Ledger:
    """The ledger opens and holds everything acknowledged, whole."""
    ledger = Ledger(path)
    charged = {number for _, number in ledger._history.rounds}
    assert ledger.steps == 5 * len(charged)
    for line in acknowledged:
        what, number = line.split()
        assert int(number) in charged
        try:
            again = ledger.reserve(charge(int(number)))
        except RoundSpentError:
            assert what == "reserved"
        else:  # released, and acknowledged or not, its bytes are the only ones
            assert isinstance(again, Released)
            assert again.payload == payload(int(number))
    return ledger


@pytest.mark.parametrize("most", TRIALS)
def test_kills_at_random_instants_lose_nothing(most: int) -> None:
    draw = random.Random(0)
    inside = trials = 0
    while trials < most:
        with memory_folder() as folder:
            path = folder / "site.ledger"
            steps, kills = new_ledger(path).steps, 0
            acknowledged: set[str] = set()
            while steps < 5 * ROUNDS and trials < most:
                child, reading = fork(rounds(path))
                lines = draw.randint(0, 3)
                told = b""
                while told.count(b"\n") < lines and (more := os.read(reading, 4096)):
                    told += more
                # The kill falls into whatever the child is at when this is over.
                end = time.monotonic() + draw.random() * 0.004
                while (left := end - time.monotonic()) > 0:
                    if select.select([reading], [], [], left)[0]:
                        more = os.read(reading, 4096)
                        told += more
                        if not more:
                            break
                os.kill(child, signal.SIGKILL)
                told += "".join(line + "\n" for line in ended(child, reading)).encode()
                lines_told = set(told.decode().splitlines())
                assert not any(line.startswith("failed") for line in lines_told), lines_told
                acknowledged |= lines_told - {"done"}
                inside += any(folder.glob("*-journal")) or any(folder.glob("*.new"))
                ledger = check(path, acknowledged)
                charges = {line for line in acknowledged if line.startswith("reserved")}
                assert len(charges) * 5 <= ledger.steps
                kills, trials, steps = kills + 1, trials + 1, ledger.steps
                assert steps <= 5 * (len(charges) + kills)  # a kill costs one round at most
    # Some kills did fall into the middle of writing; of few perhaps none.
    assert inside > 0 or most < 1000


class KillAt(apsw.VFS):
    """The operating system's files, and a kill before a given write, sync or removal.

    Args:
        spot: Which, from 0.
    """

    def __init__(self, spot: int) -> None:
        self.name, self.left = "kill-at", spot
        super().__init__(self.name, base="")

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            die()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        self.step()
        return KilledFile(self, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        self.step()
        super().xDelete(name, syncdir)


class KilledFile(apsw.VFSFile):
    """A file of `KillAt`."""

    def __init__(self, vfs: KillAt, name: Any, flags: list[int]) -> None:
        self.vfs = vfs
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.vfs.step()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self.vfs.step()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self.vfs.step()
        super().xSync(flags)


def test_a_kill_before_any_call_of_sqlite_s_to_the_system_loses_nothing() -> None:
    for spot in range(300):
        with memory_folder() as folder:
            path = folder / "site.ledger"
            run_round(new_ledger(path), 1)

            def work(pipe: int, path: Path = path, spot: int = spot) -> None:
                vfs = KillAt(spot)
                ledger = Ledger(path, vfs=vfs.name)
                reservation = reserved(ledger, 2)
                os.write(pipe, b"reserved 2\n")
                reservation.release(payload(2))
                os.write(pipe, b"released 2\n")

            told = ended(*fork(work))
            assert not any(line.startswith("failed") for line in told), told
            ledger = check(path, set(told) - {"done"})
            assert 5 <= ledger.steps <= 10
            run_round(ledger, 3)
            if "done" in told:
                break
    else:
        pytest.fail("there was no end of calls")
    assert spot > 30


def after(call: Callable[..., Any], count: int = 1) -> Callable[..., Any]:
    """The same, and death after its `count`-th time."""
    left = [count]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        left[0] -= 1
        return result if left[0] else die()

    return wrapped


def before(call: Callable[..., Any], count: int = 1) -> Callable[..., Any]:
    """Death in the place of its `count`-th time."""
    left = [count]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        return call(*args, **kwargs) if left[0] else die()

    return wrapped


# What dies where, and: what was acknowledged, whether the round is charged, whether it is released.
POINTS: dict[str, tuple[type, str, Callable[..., Any], int, list[str], bool, bool]] = {
    "before the reservation is committed": (Transaction, "append", after, 1, [], False, False),
    "before the reservation's head is written": (
        LedgerFile,
        "_write_head",
        before,
        1,
        [],
        True,
        False,
    ),
    "before the reservation's head takes its place": (Path, "replace", before, 1, [], True, False),
    "after the reservation's head is written": (
        LedgerFile,
        "_write_head",
        after,
        1,
        [],
        True,
        False,
    ),
    "between reservation and release": (
        Ledger,
        "write_release",
        before,
        1,
        ["reserved 2"],
        True,
        False,
    ),
    "before the release is committed": (
        Transaction,
        "append",
        after,
        2,
        ["reserved 2"],
        True,
        False,
    ),
    "before the release's head is written": (
        LedgerFile,
        "_write_head",
        before,
        2,
        ["reserved 2"],
        True,
        True,
    ),
    "before the release's head takes its place": (
        Path,
        "replace",
        before,
        2,
        ["reserved 2"],
        True,
        True,
    ),
    "after the release, before it is sent": (
        Ledger,
        "write_release",
        after,
        1,
        ["reserved 2"],
        True,
        True,
    ),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_leaves_the_round_spent_or_unasked(path: Path, point: str) -> None:
    owner, name, how, count, acknowledged, charged, released = POINTS[point]
    run_round(new_ledger(path), 1)

    def work(pipe: int) -> None:
        ledger = Ledger(path)
        setattr(owner, name, how(getattr(owner, name), count))
        reservation = reserved(ledger, 2)
        os.write(pipe, b"reserved 2\n")
        reservation.release(payload(2))
        os.write(pipe, b"released 2\n")

    told = ended(*fork(work))
    assert told == acknowledged
    ledger = check(path, set(told))
    assert ledger.steps == (10 if charged else 5)
    if released:
        again = ledger.reserve(charge(2))
        assert isinstance(again, Released)
        assert again.payload == payload(2)
    elif charged:
        with pytest.raises(RoundSpentError):
            ledger.reserve(charge(2))
    else:
        reserved(ledger, 2)
    run_round(ledger, 3)
    assert Ledger(path).head == ledger.head


def test_two_kills_before_the_first_heads_leave_a_ledger_that_opens(path: Path) -> None:
    def begin(pipe: int) -> None:
        setattr(LedgerFile, "_write_head", die)  # noqa: B010
        new_ledger(path)

    def first_round(pipe: int) -> None:
        # The second time: the first one makes up for the beginning's.
        setattr(LedgerFile, "_write_head", before(LedgerFile._write_head, 2))  # noqa: B010
        reserved(Ledger(path), 1)

    assert ended(*fork(begin)) == []
    assert Ledger(path).steps == 0
    assert ended(*fork(first_round)) == []
    ledger = Ledger(path)
    assert ledger.steps == 5
    run_round(ledger, 2)


def test_a_kill_as_a_ledger_begins_leaves_none_or_a_new_one() -> None:
    for spot in range(100):
        with memory_folder() as folder:
            path = folder / "site.ledger"

            def work(pipe: int, path: Path = path, spot: int = spot) -> None:
                vfs = KillAt(spot)
                Ledger.create(path, WIDE, small_plan().unit, vfs=vfs.name)

            told = ended(*fork(work))
            try:
                ledger = Ledger(path)
            except LedgerError as error:
                assert re.search("no ledger here|not a ledger", str(error))  # noqa: PT017
                assert told == []
            else:
                assert ledger.steps == 0
                run_round(ledger, 1)
                assert Ledger(path).steps == 5
            if told == ["done"]:
                break
    else:
        pytest.fail("there was no end of calls")
