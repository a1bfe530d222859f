"""The process side of `support.worker_forks`: a copy of a worker that forks for each program."""

import atexit
import faulthandler
import fcntl
import gc
import importlib.abc
import json
import logging
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
import warnings
from typing import Any, NoReturn

LARGEST = 200_000  # bytes of a job: what a local socket takes in one piece
HIGH = 100  # above any descriptor that a program is given
OURS = ("cloister", "tests")


def serve(asked: socket.socket) -> NoReturn:
    """Forks a program for each job, until the worker has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its worker
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits
    faulthandler.disable()  # it would write to a descriptor of pytest's
    atexit._clear()  # what the worker does at its end
    atexit.register(logging.shutdown)
    kept = fcntl.fcntl(asked.fileno(), fcntl.F_DUPFD, HIGH)
    asked.detach()
    for number in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    asked = socket.socket(fileno=kept)
    while True:
        message, given, _, _ = socket.recv_fds(asked, LARGEST, 16)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            asked.close()
            _watch(json.loads(message), given)
        for number in given:
            os.close(number)


def _watch(job: dict[str, Any], given: list[int]) -> NoReturn:
    """Starts the program, which says its number once it runs, and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, told = given
    child = os.fork()
    if child == 0:
        _become(job, streams, told)
    for number in streams:
        os.close(number)
    _, status = os.waitpid(child, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


class Without(importlib.abc.MetaPathFinder):
    """Finds nothing of ours."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _become(job: dict[str, Any], streams: list[int], told: int) -> NoReturn:
    """Runs the program as an interpreter of its own would."""
    code: Any = 1
    try:
        if job["is_leader"]:
            os.setsid()
        *high, told = (fcntl.fcntl(number, fcntl.F_DUPFD, HIGH) for number in (*streams, told))
        os.closerange(3, HIGH)
        for number, place in zip(high, job["places"], strict=True):
            os.dup2(number, place)
            os.close(number)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(told, f"{os.getpid()}\n".encode())
        os.close(told)
        gc.set_threshold(700, 10, 10)
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        if job["is_plain"]:
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
            sys.meta_path.insert(0, Without())
        places = [] if job["is_safe"] else [""]
        places += job["env"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [place for place in places if place not in sys.path]
        how, what, *words = job["words"]
        sys.argv = [how, *words]
        if how == "-m":
            sys.modules.pop(what, None)  # run it again, under the name `__main__`
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            assert how == "-c"
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)
