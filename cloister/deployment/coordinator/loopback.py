"""Access to the SuperLink on the coordinator's machine: the service's user and root only.

The SuperLink listens at a unix socket in `state/`, which only its owner can enter, and at no port.
This module checks the actual machine: owner and modes, ports, and another user's attempt.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import subprocess
import sys
from pathlib import Path

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.flower.sockets import why_open

# Seconds for another user's attempt: a Python that starts and one call.
PATIENCE = 30.0
# Becomes another user and tries to connect; the exit code is the result. Root starts it, as the
# other user may not be able to read this Python.
ATTEMPT = """\
import os, socket, sys
folder, name = os.path.split(sys.argv[1])
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[3]))
try:
    os.chdir(folder)
    socket.socket(socket.AF_UNIX).connect(name)
except PermissionError:
    sys.exit(10)
sys.exit(11)
"""
REFUSED, ENTERED = 10, 11


def protection(folder: ServerFolder) -> str:
    """Describes in words how other users are kept from the SuperLink."""
    owner = _name(folder.path.stat().st_uid)
    return (
        f"the SuperLink listens on no port; only {owner} can use its socket "
        f"({folder.superlink}); cloister server doctor tests it"
    )


def openings(folder: ServerFolder) -> list[str]:
    """Lists owners and modes that would let another user in; empty if there are none.

    Raises:
        OSError: The folder cannot be read.
    """
    owner = folder.path.stat().st_uid
    found = []
    for place in (folder.state,):
        if (why := why_open(place, owner)) is not None:
            found.append(f"{place}: {why}")
    for name in ("executor.secret", "ca.key", "ca-next.key", "coordinator.key", "endpoint.key"):
        place = folder.path / name
        if place.exists() and place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            found.append(f"{place}: others may read it")
    return found


def listening_ports(pid: int) -> list[int]:
    """TCP ports at which a process listens, as Linux lists them.

    Raises:
        OSError: The system is not Linux, or the process is another user's or has ended.
    """
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(handle.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:  # TCP_LISTEN, include/net/tcp_states.h
                ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


def attempt_as(user: pwd.struct_passwd, path: Path) -> int:
    """Tries to connect to a socket as another user; only root can do that.

    Returns:
        `REFUSED`, `ENTERED`, or another number if the attempt failed.

    Raises:
        OSError: The attempt could not be made.
    """
    command = [sys.executable, "-I", "-S", "-c", ATTEMPT, str(path)]
    try:
        return subprocess.run(
            [*command, str(user.pw_gid), str(user.pw_uid)],
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        ).returncode
    except subprocess.SubprocessError as error:
        raise OSError(f"another user's attempt could not be made: {error}") from error


def by_hand(path: Path, user: str = "nobody") -> str:
    """The command with which root tests it for another user."""
    return f"sudo -u {user} test -w {shlex.quote(str(path))} && echo open || echo closed"


def stranger() -> pwd.struct_passwd | None:
    """A user of this machine without rights: `nobody`, or None if there is none."""
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def is_root() -> bool:
    """Whether this process can act as another user."""
    return os.getuid() == 0
