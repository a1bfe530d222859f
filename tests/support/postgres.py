"""A PostgreSQL of the Debian package, for a test alone: its own folder, socket and user."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
OWNER, PASSWORD, READER = "owner", "s3cret-%-of-owner", "reader"


def why_not() -> str | None:
    """Why no server can be started here; None where one can."""
    if not BINARIES:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if os.geteuid() == 0 and not _has_user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


def _has_user() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return shutil.which("setpriv") is not None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address of a running server with the database `clinic`; it is stopped in the end."""
    binaries = BINARIES[-1].parent
    folder.mkdir()
    as_user = []
    if os.geteuid() == 0:  # the server refuses root
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for parent in folder.parents[:-2]:  # pytest's folders are root's alone
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    data, secret, port = folder / "data", folder / "password", free_port()
    secret.write_text(PASSWORD)
    if as_user:
        shutil.chown(secret, "postgres")

    def run(*words: str | Path) -> None:
        subprocess.run(
            [*as_user, *map(str, words)], check=True, capture_output=True, cwd=folder, timeout=60
        )

    run(
        *(binaries / "initdb", "-D", data, "-U", OWNER, "-A", "scram-sha-256"),
        *(f"--pwfile={secret}", "--no-sync", "-E", "UTF8", "--locale=C"),
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories="
    options += " -c timezone=UTC"
    run(binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://{OWNER}@127.0.0.1:{port}/postgres"
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
