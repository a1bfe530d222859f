"""Reads the token for readers on other machines, from a file or the environment only.

Everybody on the machine can see a command line, so the token is read from the environment or from a
file that only its owner can read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from cloister.errors import BadFileError, UsageError

VARIABLE = "CLOISTER_DASHBOARD_TOKEN"
# Shortest token in characters: 16 hex digits are 64 bits, which cannot be guessed over a network.
FEWEST = 16
HOW = (
    "(umask 077; openssl rand -hex 32 > dashboard.token) makes one; pass it by --token "
    f"dashboard.token, or in the environment as {VARIABLE}"
)


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Reads the token from the named file, else from the environment; None: there is none.

    Raises:
        BadFileError: The file cannot be read, or others can read it too.
        UsageError: The token is too short.
    """
    token = environment.get(VARIABLE) or None
    if file is not None:
        try:
            if file.stat().st_mode & 0o077:
                raise BadFileError(
                    f"{file}: other users can read this token; run chmod 600 {file}, and make a "
                    "new token"
                )
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadFileError(f"{file}: the token cannot be read ({error}); {HOW}") from error
    if token is not None and len(token) < FEWEST:
        raise UsageError(f"a token of {len(token)} characters is too short; {HOW}")
    return token


def is_loopback(host: str) -> bool:
    """Returns whether an address can be reached from this machine only.

    Raises:
        UsageError: It is not an address.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(f"--host: {host!r} given; an address of this machine is needed") from error


def demand_token(host: str, token: str | None) -> None:
    """Refuses to listen for other machines without a token.

    Raises:
        UsageError: `host` is reachable for other machines, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise UsageError(f"--host {host}: other machines reach it, so a token is needed: {HOW}")
