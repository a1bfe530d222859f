"""Runs Python programs in forks of this worker, which has loaded torch and all that tests import.

Loading it takes six seconds of processor time; what a program does afterwards is what a user's
does. The worker forks once, when all tests are collected and none has run (`tests/conftest.py`).
That copy has no threads and nothing patched; it forks again for each program
(`support.worker_copy`). `make nightly` gives each program an interpreter of its own instead.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests.support.examples import ALL
from tests.support.worker_copy import serve

Place = int | IO[Any] | None

_copies: list[socket.socket] = []


def begin() -> None:
    """Forks the copy of this worker from which programs are forked."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; that of xdist waits for messages and holds nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        ours.close()
        serve(its)
    its.close()
    _copies.append(ours)


def end() -> None:
    """Ends the copy."""
    while _copies:
        _copies.pop().close()


class Fork:
    """A program in a process of its own: what tests need of `subprocess.Popen`.

    Args:
        command: This interpreter, and `-c PROGRAM` or `-m MODULE` with arguments.
        stdin: As in `Popen`, like all below, but that None is `/dev/null`.
        is_plain: Whether nothing of cloister can be imported.
    """

    returncode: int | None

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: Place = None,
        stdout: Place = None,
        stderr: Place = None,
        text: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
        is_plain: bool = False,
    ) -> None:
        interpreter, *words = (str(word) for word in command)
        assert interpreter == sys.executable, "only Python can be forked"
        self.args, self.returncode = list(command), None
        job = {
            "words": [word for word in words if word != "-P"],
            "is_safe": "-P" in words,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "places": [0, 1, 2, *pass_fds],
            "is_leader": start_new_session,
            "is_plain": is_plain,
        }
        mode = "" if text else "b"
        self.stdin, inner = _ends(stdin, f"w{mode}")
        self.stdout, out = _ends(stdout, f"r{mode}")
        self.stderr, err = _ends(stderr, f"r{mode}")
        self._told, told = os.pipe()
        given = [inner, out, err, *map(os.dup, pass_fds), told]
        socket.send_fds(_copies[-1], [json.dumps(job).encode()], given)
        for number in given:
            os.close(number)
        self.pid = self._read()

    def _read(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._told, 1)
            assert more, "the copy of this worker has ended"
            line += more
        return int(line)

    def poll(self) -> int | None:
        """Its exit code, where it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; its exit code, or minus the number of the signal that ended it."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._read()
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, where it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)


Program = Fork | subprocess.Popen[Any]


def started(command: Sequence[str], *, is_plain: bool = False, **options: Any) -> Program:
    """Starts a program; see `Fork`."""
    if ALL:
        return subprocess.Popen(command, **options)
    return Fork(command, is_plain=is_plain, **options)


# What stands for the module in `training.team` and `deployment.site.read_apart`.
PIPE, DEVNULL, TimeoutExpired, Popen = (
    subprocess.PIPE,
    subprocess.DEVNULL,
    subprocess.TimeoutExpired,
    started,
)


def _ends(place: Place, mode: str) -> tuple[IO[Any] | None, int]:
    """This side's end of a program's stream, if it has one, and the program's."""
    if place == subprocess.PIPE:
        read, write = os.pipe()
        ours, its = (read, write) if "r" in mode else (write, read)
        return os.fdopen(ours, mode), its
    if place is None or place == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    return None, os.dup(place if isinstance(place, int) else place.fileno())


def run(
    command: Sequence[str],
    *,
    stdin: Place = None,
    capture_output: bool = True,
    text: bool = True,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, as `subprocess.run` that captures text."""
    assert capture_output
    assert text
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = started(command, stdin=stdin, stdout=out, stderr=err, **options).wait()
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(list(command), code, out.read(), err.read())
    if check:
        done.check_returncode()
    return done
