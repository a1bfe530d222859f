"""Raises the limit of files and connections that this process may have open."""

from __future__ import annotations

import resource


def raise_open_files(needed: int) -> int:
    """Raises this process's limit of open files to `needed`, up to the hard limit.

    Args:
        needed: Files and connections.

    Returns:
        The limit now; it is below `needed` if the hard limit (`ulimit -Hn`, a service's
        `LimitNOFILE`) is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return needed if soft == unlimited else soft
    target = needed if hard == unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target
