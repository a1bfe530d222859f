"""Chooses free ports for tests that run in parallel."""

import os
import random
import socket

# Below the range from which Linux takes the ports of outgoing connections (32768 and above), so
# that a port that was free when it was chosen is not taken by a connection a second later.
FIRST, LAST = 20_000, 32_000

# Test processes choose in an order of their own, seeded by their process number, and never choose a
# port twice.
_order = random.Random(os.getpid()).sample(range(FIRST, LAST), LAST - FIRST)


def free_port() -> int:
    """A port on loopback that nobody listens on; this process hands out each once."""
    while _order:
        port = _order.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")
