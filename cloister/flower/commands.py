"""The command lines of Flower's two long-lived processes, closed as far as they can be."""

from __future__ import annotations

import sys
from pathlib import Path

# In the environment that runs this process, whatever PATH says.
_BIN = Path(sys.executable).parent


def superlink(
    *, port: int, authority: Path, certificate: Path, key: Path, secret: Path, database: Path
) -> list[str]:
    """A SuperLink on loopback: nodes sign in, executors show a secret, nothing is installed."""
    return [
        str(_BIN / "flower-superlink"),
        "--host", "127.0.0.1",
        "--port", str(port),
        "--ssl-ca-certfile", str(authority),
        "--ssl-certfile", str(certificate),
        "--ssl-keyfile", str(key),
        "--enable-supernode-auth",
        "--isolation", "process",
        "--superexec-auth-secret-file", str(secret),
        "--database", str(database),
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip


def supernode(*, address: str, authority: Path, key: Path, port: int, secret: Path) -> list[str]:
    """A SuperNode: TLS to the coordinator, its Runtime API on loopback for our agent alone."""
    return [
        str(_BIN / "flower-supernode"),
        "--superlink", address,
        "--root-certificates", str(authority),
        "--auth-supernode-private-key", str(key),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(secret),
        "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
