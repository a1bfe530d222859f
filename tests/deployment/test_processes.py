"""A supervisor restarts its children, takes them along, and ends them in time."""

import math
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.deployment import log_rotation, processes
from cloister.deployment.processes import (
    FIRST_DELAY,
    LONGEST_DELAY,
    Program,
    Supervisor,
    is_cloister,
)

SLEEPER = "import time, sys; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def program(folder: Path, name: str, code: str = SLEEPER, **more: object) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-S", "-c", code],
        environment={},
        log=folder / f"{name}.log",
        **more,  # type: ignore[arg-type]
    )


def until(ready: Callable[[], object], patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(supervisor: Supervisor) -> Iterator[Supervisor]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop.set()
        thread.join(600)
        assert not thread.is_alive()
        assert all(child.process is None for child in supervisor.children.values())


def is_up(folder: Path, name: str, times: int = 1) -> bool:
    log = folder / f"{name}.log"
    try:
        return log.read_text().count("up") >= times
    except FileNotFoundError:  # not begun, or just being rotated
        return False


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # ended; whoever adopted it has not looked yet


def test_children_run_and_end_with_their_supervisor(tmp_path: Path) -> None:
    changes: list[int] = []
    supervisor = Supervisor(
        [program(tmp_path, "one"), program(tmp_path, "two")], on_change=lambda: changes.append(1)
    )
    with running(supervisor):
        until(lambda: is_up(tmp_path, "one") and is_up(tmp_path, "two"))
        pids = [child.pid for child in supervisor.children.values()]
        assert None not in pids
    assert all(is_gone(pid) for pid in pids if pid)
    assert len(changes) == 3  # two starts, one end
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    with running(Supervisor([program(tmp_path, "one")])) as supervisor:
        until(lambda: is_up(tmp_path, "one"))
        child = supervisor.children["one"]
        first = child.pid
        assert first
        os.kill(first, signal.SIGKILL)
        until(lambda: is_up(tmp_path, "one", 2))
        assert child.pid != first
        assert (child.starts, child.exit_code) == (2, -signal.SIGKILL)


def test_a_child_that_always_dies_is_started_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of its own: the supervisor's looks are done by hand."""
    now = [1000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    supervisor = Supervisor([program(tmp_path, "one", "raise SystemExit(3)")])
    child, waits = supervisor.children["one"], []
    for _ in range(8):
        supervisor._look()
        assert child.process is not None
        child.process.wait()
        supervisor._look()
        waits.append(child.due - now[0])
        now[0] = child.due - 0.01
        supervisor._look()
        assert child.process is None  # not yet
        now[0] = child.due
    assert waits[0] == pytest.approx(FIRST_DELAY)
    assert waits[-1] == pytest.approx(LONGEST_DELAY)
    assert waits == sorted(waits)
    assert child.exit_code == 3
    supervisor._look()
    assert child.process is not None
    child.process.wait()
    now[0] += processes.STEADY + 1  # as if it had lived long
    supervisor._look()
    assert child.due - now[0] == pytest.approx(FIRST_DELAY)


def test_a_child_takes_others_down_with_it(tmp_path: Path) -> None:
    programs = [
        program(tmp_path, "node"),
        program(tmp_path, "agent", takes_down=("node",)),
        program(tmp_path, "other"),
    ]
    with running(Supervisor(programs)) as supervisor:
        until(lambda: all(is_up(tmp_path, name) for name in ("node", "agent", "other")))
        agent, other = (supervisor.children[name].pid for name in ("agent", "other"))
        assert agent
        os.kill(agent, signal.SIGKILL)
        until(lambda: is_up(tmp_path, "node", 2) and is_up(tmp_path, "agent", 2))
        assert supervisor.children["other"].pid == other


def test_a_child_that_hears_nothing_is_killed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processes.GRACE < 10  # what a service is given
    monkeypatch.setattr(processes, "GRACE", 0.3)
    supervisor = Supervisor([program(tmp_path, "deaf", DEAF), program(tmp_path, "one")])
    with running(supervisor):
        until(lambda: is_up(tmp_path, "deaf") and is_up(tmp_path, "one"))
        process = supervisor.children["deaf"].process
    assert process
    assert process.returncode == -signal.SIGKILL  # it would have slept on
    assert is_gone(process.pid)


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    """Whether it is ended, or dies by itself."""
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']); "
        "print('pid', child.pid, 'up', flush=True); "
    )
    for name, rest in (("ended", "import time; time.sleep(600)"), ("dies", "raise SystemExit(1)")):
        with running(Supervisor([program(tmp_path, name, code + rest)])) as supervisor:
            until(lambda name=name: is_up(tmp_path, name))
            if name == "dies":
                until(lambda: supervisor.children["dies"].exit_code == 1)
        words = (tmp_path / f"{name}.log").read_text().split()
        pids = [int(word) for at, word in enumerate(words) if words[at - 1] == "pid"]
        until(lambda pids=pids: all(is_gone(pid) for pid in pids))


SUPERVISE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cloister.deployment.processes import Program, Supervisor
code = "import os, time; print('pid', os.getpid(), 'up', flush=True); time.sleep(600)"
supervisor = Supervisor([
    Program(name=name, command=[sys.executable, "-S", "-c", code], environment={},
            log=Path(sys.argv[1]) / f"{name}.log")
    for name in ("one", "two")
])
supervisor.end_on_signals()
supervisor.run()
print("ended")
"""
ROOT = str(Path(processes.__file__).parents[1])


@contextmanager
def supervised(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(folder), ROOT], stdout=subprocess.PIPE
    )
    try:
        until(lambda: is_up(folder, "one") and is_up(folder, "two"))
        pids = [int((folder / f"{name}.log").read_text().split()[1]) for name in ("one", "two")]
        yield process, pids
    finally:
        process.kill()
        process.communicate(timeout=600)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing, on Linux")
def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, pids):
        process.kill()
        process.wait()
        until(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_supervisor_in_order(tmp_path: Path, number: int) -> None:
    with supervised(tmp_path) as (process, pids):
        process.send_signal(number)
        assert process.communicate(timeout=600)[0] == b"ended\n"
        assert process.returncode == 0
        assert all(is_gone(pid) for pid in pids)


def test_a_program_that_is_not_there_does_not_end_the_others(tmp_path: Path) -> None:
    lost = Program(name="lost", command=["/none/at/all"], environment={}, log=tmp_path / "l.log")
    (tmp_path / "file").write_text("")
    unlogged = program(tmp_path / "file", "unlogged")
    with running(Supervisor([lost, unlogged, program(tmp_path, "one")])) as supervisor:
        until(lambda: is_up(tmp_path, "one"))
        until(lambda: supervisor.children["lost"].starts > 1)
        assert supervisor.children["lost"].delay > FIRST_DELAY
        assert supervisor.children["one"].starts == 1


def test_a_disk_at_which_nothing_can_be_noted_ends_nothing(tmp_path: Path) -> None:
    calls: list[int] = []

    def full() -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    with running(Supervisor([program(tmp_path, "one")], full, full)) as supervisor:
        until(lambda: is_up(tmp_path, "one") and len(calls) > 2)
        assert supervisor.children["one"].starts == 1


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write to the folder must not choose what the supervisor writes to."""
    (tmp_path / "one.log").symlink_to(tmp_path / "elsewhere")
    with running(Supervisor([program(tmp_path, "one")])) as supervisor:
        until(lambda: supervisor.children["one"].delay > FIRST_DELAY)
    assert not (tmp_path / "elsewhere").exists()


FLOOD = """
import os
for at in range(200_000):
    os.write(1 + at % 2, b"line %07d of a flood\\n" % at)
print("up", flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["raise SystemExit(1)", "import time; time.sleep(600)"])
def test_a_flood_fills_no_disk_and_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """While the child runs: it holds no file, so that its log can change files under it."""
    monkeypatch.setattr(log_rotation, "LARGEST", 100_000)
    monkeypatch.setattr(log_rotation, "KEPT", 3)
    monkeypatch.setattr(processes, "STEADY", math.inf)
    supervisor = Supervisor([program(tmp_path, "one", FLOOD.format(then=then))])
    supervisor.children["one"].delay = 600.0  # once is enough
    with running(supervisor):
        until(lambda: is_up(tmp_path, "one"))
    files = [tmp_path / f"one.log{end}" for end in (".3", ".2", ".1", "")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 100_000 for file in files)
    lines = b"".join(file.read_bytes() for file in files).splitlines()
    *flood, last = lines
    assert last == b"up"
    first = 200_000 - len(flood)
    assert flood == [b"line %07d of a flood" % at for at in range(first, 200_000)]
    assert len(flood) > 300_000 // 24


def test_a_full_disk_holds_up_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted, and the count stands where it is missing."""
    log = log_rotation.RotatingLog(tmp_path / "one.log")
    write, full = os.write, [True]

    def sometimes(file: int, content: bytes) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(file, content[:5])  # and never all of it at once

    monkeypatch.setattr(log_rotation.os, "write", sometimes)
    assert (tmp_path / "one.log").read_bytes() == b""
    log.write(b"lost\n")
    log.write(b"and more\n")
    full[0] = False
    log.write(b"after that\n")
    log.close()
    told = (tmp_path / "one.log").read_text()
    assert told == "14 bytes are missing here: the disk was full\nafter that\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes away")
def test_a_child_that_is_given_away_keeps_nothing_of_its_parent_s(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    shell = Program(
        name="one",
        command=["/bin/sh", "-c", "cat /proc/$$/status; echo up; sleep 600"],
        environment={"PATH": os.defpath},
        log=tmp_path / "one.log",
        user=nobody.pw_uid,
    )
    with running(Supervisor([shell])):
        until(lambda: is_up(tmp_path, "one"))
    lines = (line.split() for line in (tmp_path / "one.log").read_text().splitlines())
    told = {
        words[0]: {int(word) for word in words[1:]}
        for words in lines
        if words[0] in ("Uid:", "Gid:", "Groups:")
    }
    assert told["Uid:"] == {nobody.pw_uid}
    assert told["Gid:"] == {nobody.pw_gid}
    assert told["Groups:"] <= set(os.getgrouplist("nobody", nobody.pw_gid))


def test_only_a_process_of_cloister_s_is_taken_for_one(tmp_path: Path) -> None:
    assert not is_cloister(0)
    assert not is_cloister(-1)
    assert not is_cloister(1)
    command = [sys.executable, "-S", "-c", SLEEPER]
    ours, other = (
        subprocess.Popen([*command, word], stdout=subprocess.PIPE) for word in ("cloister", "x")
    )
    try:
        for process in (ours, other):
            assert process.stdout
            process.stdout.readline()
        assert is_cloister(ours.pid)
        assert not is_cloister(other.pid) or "cloister" in sys.executable
    finally:
        for process in (ours, other):
            process.kill()
            process.communicate()
    assert not is_cloister(ours.pid)
