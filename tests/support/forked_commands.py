"""Our commands, each in a process of its own that is forked where torch is loaded already.

Loading it takes ten seconds of processor time; what the processes do after it is what a user's do.
"""

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import TextIO

FORKS = multiprocessing.get_context("forkserver")


@dataclass
class Command:
    """A command that runs, and what it prints on stderr."""

    process: ForkServerProcess
    stderr: TextIO

    def ended(self) -> tuple[int, str]:
        """Waits for its end; its exit code, and what it printed that was not read yet."""
        told = self.stderr.read()
        self.process.join()
        assert self.process.exitcode is not None
        self.stderr.close()
        return self.process.exitcode, told


def started(*words: str) -> Command:
    """Starts a command of ours."""
    FORKS.set_forkserver_preload(["tests.support.loaded"])
    reading, writing = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_run, args=(writing, words), daemon=True)
    process.start()
    writing.close()  # so that what is read ends with the command
    stderr = os.fdopen(os.dup(reading.fileno()), encoding="utf-8")
    reading.close()
    return Command(process, stderr)


def _run(told: Connection, words: tuple[str, ...]) -> None:
    os.dup2(told.fileno(), 2)
    told.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # A job that a shell started in the background inherits an ignored SIGINT; this one listens.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from cloister.cli.main import main

    sys.argv = ["cloister", *words]
    main()
