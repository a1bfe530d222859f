"""Free memory on this machine, as the system reports it; read once per process.

It decides how many records go through the network together if a machine's file does not state it
(`training.room`). It is read before any record is, so that neither a site's answers nor their times
depend on the number of records.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

from cloister.models.device import free_bytes

_KIB = 1024
# A cgroup of version 1 without a limit reports a number near 2⁶³.
_UNLIMITED = 2**60


def free_at_start(device: torch.device) -> int | None:
    """Free bytes of a device when this process first asked.

    Args:
        device: For the CPU it is the machine's memory.

    Returns:
        None if the system does not report it.
    """
    return _first(device.type, device.index or 0)


@lru_cache(maxsize=64)
def _first(kind: str, index: int) -> int | None:
    return available() if kind == "cpu" else free_bytes(torch.device(kind, index))


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that may be used without swapping.

    Args:
        root: Root of the file system.

    Returns:
        The smallest of the kernel's figure and of the rest in the process's control groups; None on
        systems without `/proc/meminfo`.
    """
    reported = _number(root / "proc" / "meminfo", "MemAvailable:")
    if reported is None:
        return None
    return max(min([reported * _KIB, *_groups(root)]), 0)


def _groups(root: Path) -> list[int]:
    """The free bytes in each limited control group of this process, from inner to outer."""
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
                # The kernel drops unused cached files before it refuses memory.
                found.append(limit - taken + (_number(place / "memory.stat", idle) or 0))
            place = place.parent
    return found


def _number(path: Path, name: str = "") -> int | None:
    """The number after a name in a file of lines, or the file's only number; None if there is
    none."""
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
