"""Starts, watches, restarts and ends long-lived child processes."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloister.deployment.log_rotation import Pump, RotatingLog
from cloister.stopping import Stop

log = logging.getLogger(__name__)

# Seconds before a dead child is restarted, doubling up to the second value; a child that lived for
# the third starts again with the first.
FIRST_DELAY, LONGEST_DELAY, STEADY = 0.5, 10.0, 60.0
# Seconds between asking children to end and killing them; in all a service must end within 10 s.
GRACE = 7.0
POLL = 0.1
# Seconds for writing what an ended child left in its pipe (64 KiB at most).
DRAIN = 2.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that the supervisor keeps running: its command, user and log.

    Attributes:
        name: Shown in status and logs.
        command: Its arguments.
        environment: Its whole environment.
        log: File for its output, rotated while it runs.
        takes_down: Programs that are restarted when this one dies unasked.
        user: Numeric user to run as; None: this process's.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    takes_down: tuple[str, ...] = ()
    user: int | None = None


@dataclass
class Child:
    """A program and the process that runs it.

    Attributes:
        program: The program.
        process: None between two starts.
        starts: How often it was started.
        exit_code: Exit code of the last process that ended.
    """

    program: Program
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exit_code: int | None = None
    delay: float = FIRST_DELAY
    due: float = 0.0
    since: float = 0.0
    pump: Pump | None = None

    @property
    def pid(self) -> int | None:
        """Id of the running process; None if none runs."""
        return self.process.pid if self.process else None

    def start(self) -> None:
        """Starts the program's process; on an error it is tried again later."""
        self.starts += 1
        self.since = time.monotonic()
        output = None
        try:
            group, more = _groups_of(self.program.user)
            output = RotatingLog(self.program.log)
            self.process = subprocess.Popen(
                self.program.command,
                bufsize=0,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                user=self.program.user,
                group=group,
                extra_groups=more,
                preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:  # no memory, no disk, no program
            log.error("%s cannot be started: %s", self.program.name, error)
            if output is not None:
                output.close()
            self._wait_longer()
        else:
            assert self.process.stdout is not None
            self.pump = Pump(self.process.stdout, output)

    def has_ended(self) -> bool:
        """Whether the process ended since the last check; sets the time of its restart."""
        if self.process is None or self.process.poll() is None:
            return False
        self.exit_code = self.process.returncode
        self.kill()  # also kills processes that it started and that still run
        self.process = None
        self._wait_longer()
        return True

    def _wait_longer(self) -> None:
        if time.monotonic() - self.since > STEADY:
            self.delay = FIRST_DELAY
        self.due = time.monotonic() + self.delay
        self.delay = min(2 * self.delay, LONGEST_DELAY)

    def ask_to_end(self) -> None:
        """Sends SIGTERM to the process, if it runs."""
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """Kills it with all processes that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.pump is not None:
            self.pump.finish(DRAIN)
            self.pump = None


@dataclass
class Supervisor:
    """Keeps programs running until it is told to stop.

    Attributes:
        programs: In the order in which they start; they end in the opposite one.
        on_tick: Called between checks, ten times per second.
        on_change: Called after a child was started or ended.
        stop: Set it to end.
    """

    programs: Sequence[Program]
    on_tick: Callable[[], None] = lambda: None
    on_change: Callable[[], None] = lambda: None
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.children = {program.name: Child(program) for program in self.programs}

    def run(self) -> None:
        """Starts everything and keeps it running; returns once all has ended."""
        try:
            while not self.stop.is_set():
                self._look()
                _try(self.on_tick)
                self.stop.wait(POLL)
        finally:
            self._end(list(self.children.values()))
            _try(self.on_change)

    def restart(self, name: str) -> None:
        """Ends a child and starts it again at the next look."""
        self._end([self.children[name]])
        self.children[name].due = 0.0

    def end_on_signals(self) -> None:
        """SIGTERM and SIGINT end the supervisor; to be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def _look(self) -> None:
        for child in self.children.values():
            if child.has_ended():
                log.warning("%s ended with code %s", child.program.name, child.exit_code)
                for name in child.program.takes_down:
                    self.restart(name)
                _try(self.on_change)
        for child in self.children.values():
            if child.process is None and time.monotonic() >= child.due:
                child.start()
                _try(self.on_change)

    def _end(self, children: Sequence[Child]) -> None:
        running = [child for child in reversed(children) if child.process is not None]
        for child in running:
            child.ask_to_end()
        deadline = time.monotonic() + GRACE
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s does not stop; it is killed", child.program.name)
            child.kill()
            child.process = None


def _try(call: Callable[[], None]) -> None:
    """Calls and ignores errors of a full disk, which must not end running processes."""
    try:
        call()
    except OSError as error:
        log.error("%s", error)


def _groups_of(user: int | None) -> tuple[int | None, list[int] | None]:
    """A user's own group and further groups; a child of another user keeps none of its parent's.

    Raises:
        OSError: The machine does not know the user.
    """
    if user is None:
        return None, None
    try:
        entry = pwd.getpwuid(user)
    except KeyError as error:
        raise OSError(f"no user {user}") from error
    return entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


def _end_with_parent() -> Callable[[], None]:
    """Returns the child's first call: the kernel then ends it when its parent dies."""
    library, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return bind


def is_cloister(pid: int) -> bool:
    """Whether a process exists and is cloister's, and not another one with the same number."""
    if pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except OSError:
        return False
    try:
        return b"cloister" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path(
            "/proc/self"
        ).exists()  # systems without /proc: only the number can be compared
