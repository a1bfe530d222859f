"""The command lines of Flower's two long-lived processes."""

from __future__ import annotations

import sys
from pathlib import Path


def superlink(*, socket: Path, secret: Path, database: Path) -> list[str]:
    """A SuperLink on a unix socket: nodes sign in, executors show a secret."""
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
    """A SuperNode: TLS to the coordinator, its Runtime API on a unix socket for our agent alone."""
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
