"""What an example system does around Cloister: it types its commands and runs its services."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from cloister.cli.main import run
from cloister.errors import CloisterError
from cloister.quiet import keep_quiet

# Of a wrong option, as argparse and cloister end.
USAGE = 2
# Of a command that SIGINT ended, as shells say it.
INTERRUPTED = 130
# Seconds in which a service answers what it has taken.
DRAIN = 60


def say(text: str = "") -> None:
    """Prints a line at once."""
    print(text, flush=True)


def whole(text: str) -> int:
    """A whole number of at least 1, for an option.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number of at least 1 is needed")
    return int(text)


def cosine(text: str) -> float:
    """A number from −1 to 1, for an option.

    Raises:
        ArgumentTypeError: It is none.
    """
    with contextlib.suppress(ValueError):
        if -1 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text}: a number from -1 to 1 is needed")


def new_folder(path: Path) -> Path:
    """Makes a folder that is not there yet; ends the program with one message where it cannot."""
    folder = path.absolute()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        fail(f"{path} is there already: remove it, or name another folder")
    except OSError as error:
        fail(f"{path}: cannot be made ({error.strerror}); name another folder")
    return folder


def check_port(port: int) -> None:
    """Ends the program with one message where a port is taken; minutes of training come first."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        fail(f"--port {port}: cannot be listened at ({error.strerror}); give another")


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Ends the program with one message."""
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def cloister(*words: str) -> None:
    """Runs a command of cloister in this process, which has loaded torch, and shows it.

    A command that fails has said why; the program ends with its code.
    """
    say(f"\n$ cloister {shlex.join(words)}")
    if code := run(list(words)):
        sys.exit(code)


@contextlib.contextmanager
def serving(*words: str) -> Iterator[str]:
    """A service in a process of its own, `cloister serve` with these words, until the block ends.

    Yields:
        Its address.
    """
    with running("serve", *words) as address:
        yield address


@contextlib.contextmanager
def running(*words: str) -> Iterator[str]:
    """A command of cloister that says where it listens, in a process of its own.

    Yields:
        Its address.
    """
    say(f"\n$ cloister {shlex.join(words)}")
    command = [sys.executable, "-m", "cloister", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = threading.Thread(target=_pass_on, args=(process.stderr,))
        try:
            address = _address(process.stderr)
            if address is None:
                sys.exit(process.wait())
            told.start()
            yield address
        finally:
            process.terminate()
            process.wait(DRAIN)
            if told.ident is not None:
                told.join()


def _address(lines: Iterator[str]) -> str | None:
    """Passes a service's lines on until it says where it is; None: it ended before."""
    for line in lines:
        say(f"  {line.rstrip()}")
        if line.startswith("http"):
            return line.split()[0]
    return None


def _pass_on(lines: Iterator[str]) -> None:
    for line in lines:
        say(f"  {line.rstrip()}")


def wait_for_ctrl_c() -> None:
    """Returns when somebody presses Ctrl-C, or the process is asked to end."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def program(main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs an example: quiet libraries, one message in place of a traceback, SIGTERM as Ctrl-C."""
    keep_quiet()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(None)
    except CloisterError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of the output has ended: nobody can be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CloisterError.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; remove the folder before the next try", INTERRUPTED)
