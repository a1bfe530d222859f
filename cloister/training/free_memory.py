"""Memory that is free on this machine, as the system tells it; looked at once in a process.

How many records go through the network together follows from it where a machine's file does not
say (`training.room`). It is looked at before any record is read, so that nothing that a site
answers, not even when, follows from how many records there are.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

from cloister.models.device import free_bytes

_KIB = 1024
# A cgroup of version 1 without a limit says a number near 2⁶³.
_UNLIMITED = 2**60


def free_at_start(device: torch.device) -> int | None:
    """What was free on a device when this process first asked for it, in bytes.

    Args:
        device: Of the CPU, the machine's memory.

    Returns:
        None where nothing tells it.
    """
    return _first(device.type, device.index or 0)


@lru_cache(maxsize=64)
def _first(kind: str, index: int) -> int | None:
    return available() if kind == "cpu" else free_bytes(torch.device(kind, index))


def available(root: Path = Path("/")) -> int | None:
    """What may be taken without anything being written to disk, in bytes.

    Args:
        root: Of the file system.

    Returns:
        The least of what the kernel says and of what the process's control groups leave; None on
        systems that have no `/proc/meminfo`.
    """
    told = _number(root / "proc" / "meminfo", "MemAvailable:")
    if told is None:
        return None
    return max(min([told * _KIB, *_groups(root)]), 0)


def _groups(root: Path) -> list[int]:
    """What each limited control group of this process leaves; groups lie in one another."""
    found = []
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / "sys" / "fs" / "cgroup" / ("memory" if kinds else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        most, used, idle = names if kinds else ("memory.max", "memory.current", "inactive_file")
        place = top / path.strip("/")
        while place.is_relative_to(top):
            limit, taken = _number(place / most), _number(place / used)
            if limit is not None and taken is not None and limit < _UNLIMITED:
                # The kernel takes back files that nobody reads before it refuses memory.
                found.append(limit - taken + (_number(place / "memory.stat", idle) or 0))
            place = place.parent
    return found


def _number(path: Path, name: str = "") -> int | None:
    """The number after a name in a file of lines, or its only one; None where there is none."""
    for line in _lines(path):
        words = line.split()
        if not name and words and words[0].isdigit():
            return int(words[0])
        if name and len(words) > 1 and words[0] == name:
            return int(words[1])
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
