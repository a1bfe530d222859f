"""The command lines of Flower's two long-lived processes."""

from __future__ import annotations

import sys
from pathlib import Path


def superlink(*, socket: Path, secret: Path, database: Path) -> list[str]:
    """Returns the command of a SuperLink on a unix socket, with signed nodes and a secret."""
    return [
        sys.executable,
        "-m",
        "cloister.deployment.flower.superlink",
        "--socket",
        str(socket),
        "--secret",
        str(secret),
        "--database",
        str(database),
    ]


def supernode(*, address: str, authority: Path, key: Path, socket: Path, secret: Path) -> list[str]:
    """Returns the command of a SuperNode: TLS to the coordinator, a unix socket for the agent."""
    return [
        sys.executable,
        "-m",
        "cloister.deployment.flower.supernode",
        "--superlink",
        address,
        "--authority",
        str(authority),
        "--key",
        str(key),
        "--socket",
        str(socket),
        "--secret",
        str(secret),
    ]
