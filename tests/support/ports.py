"""Chooses free ports for tests that run in parallel."""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# Below the range from which Linux takes the ports of outgoing connections (32768 and above), so
# that a port that was free when it was chosen is not taken by a connection a second later.
FIRST, LAST = 20_000, 32_000

# Test processes choose in an order of their own, seeded by their process number, and never choose a
# port twice.
_order = random.Random(os.getpid()).sample(range(FIRST, LAST), LAST - FIRST)


def free_port() -> int:
    """A port on loopback that nobody listens on; it is this process's until it ends.

    Between the choice and the moment at which somebody listens, another test process would find it
    free too. So each locks its ports: one byte a port of a file that all of a user's share.
    """
    while _order:
        port = _order.pop()
        try:
            fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")


@cache
def _locks() -> int:
    """The file with the locks, which stays open: closing it would give all of them up."""
    path = Path(tempfile.gettempdir()) / f"cloister-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
