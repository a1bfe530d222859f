"""A confined process and its children can use unix sockets only."""

import errno
import json
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.deployment import confinement
from cloister.deployment.confinement import MACHINES, leave_the_network

ROOT = str(Path(confinement.__file__).parents[1])
PROBE = """
import json, socket, subprocess, sys
sys.path.insert(0, sys.argv[1])
if sys.argv[2] != "inner":
    from cloister.deployment.confinement import leave_the_network
    assert leave_the_network()
    assert leave_the_network()  # no harm in twice
told = {}
for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX", "AF_VSOCK"):
    try:
        socket.socket(getattr(socket, name), socket.SOCK_STREAM if "INET" in name or
                      name in ("AF_UNIX", "AF_VSOCK") else socket.SOCK_RAW).close()
        told[name] = 0
    except OSError as error:
        told[name] = error.errno
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5)
    told["connected"] = 0
except OSError as error:
    told["connected"] = error.errno
import ctypes
library = ctypes.CDLL(None, use_errno=True)
told["io_uring"] = 0 if library.syscall(425, 8, 0) >= 0 else ctypes.get_errno()
socket.socketpair()
if sys.argv[2] != "inner":
    told["child"] = json.loads(subprocess.check_output(
        [sys.executable, "-S", "-c", sys.argv[4], sys.argv[1], "inner", sys.argv[3]]))
print(json.dumps(told))
"""
AWAY = errno.EAFNOSUPPORT

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MACHINES,
    reason="seccomp filters are Linux's, and this one knows two architectures",
)


@linux
def test_no_socket_but_unix_ones_can_be_made_by_anybody_below() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", PROBE, ROOT, "outer", port, PROBE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    told = json.loads(done.stdout)
    for one in (told, told.pop("child")):
        assert one.pop("AF_UNIX") == 0
        assert set(one.values()) == {AWAY}, one


@linux
def test_without_it_the_same_process_reaches_the_network() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-S", "-c", PROBE, ROOT, "inner", port],
            capture_output=True,
            text=True,
            check=True,
        )
    told = json.loads(done.stdout)
    assert (told["AF_INET"], told["connected"]) == (0, 0)


def test_a_machine_that_it_does_not_know_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement.platform, "machine", lambda: "s390x")
    assert not leave_the_network()
