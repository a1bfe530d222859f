"""Removes network access from a process that reads records, for the rest of its life.

A seccomp filter (Linux, linux/seccomp.h) lets this process and its children make unix sockets only:
no connection to another machine, nor to a port of this one. It needs no privilege and cannot be
removed. io_uring, which could bypass it, is refused.

Guarantees: The filter covers this process and its children. They could still reach another process
    of the same user by files or unix sockets; a user of its own (`site.agent_user`) or its own unit
    prevents that.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys

# linux/prctl.h, linux/seccomp.h, linux/bpf_common.h.
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUALS, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
# Offsets in struct seccomp_data of the call's number, the architecture and the first argument.
NUMBER, ARCHITECTURE, FIRST = 0, 4, 16
# Audit's name of each architecture (linux/audit.h) and its number of `socket` (asm/unistd.h).
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
IO_URING_SETUP = 425  # the same number on both architectures
# x86_64 takes the calls of its 32-bit-pointer twin by numbers from here on (asm/unistd.h).
X32 = 0x40000000


def leave_the_network() -> bool:
    """Removes all network access except unix sockets from this process and its children, for good.

    Returns:
        Whether access was removed; False on systems without such a filter.

    Guarantees:
        After True no socket of another family can be made here; `socket` fails with EAFNOSUPPORT,
        as on a machine that has no such network.
    """
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.maxsize < 2**32:
        return False
    program = _program(*machine)
    rows = ctypes.create_string_buffer(program, len(program))
    library = ctypes.CDLL(None, use_errno=True)
    # struct sock_fprog: the number of instructions, and where they are.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(rows))
    outcomes = (
        library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0),
    )
    return outcomes == (0, 0)


def _program(architecture: int, socket_call: int) -> bytes:
    """Makes the filter; a row is (operation, value, rows to skip if true, and if false)."""
    refuse = REFUSE | errno.EAFNOSUPPORT
    rows = [
        (LOAD, ARCHITECTURE, 0, 0),
        (EQUALS, architecture, 1, 0),
        (RETURN, refuse, 0, 0),  # call numbers of another architecture differ: refuse all
        (LOAD, NUMBER, 0, 0),
        (AT_LEAST, X32, 4, 0),
        (EQUALS, IO_URING_SETUP, 3, 0),
        (EQUALS, socket_call, 0, 3),
        (LOAD, FIRST, 0, 0),
        (EQUALS, socket.AF_UNIX, 1, 0),
        (RETURN, refuse, 0, 0),
        (RETURN, ALLOW, 0, 0),
    ]
    return b"".join(struct.pack("<HBBI", what, yes, no, value) for what, value, yes, no in rows)
