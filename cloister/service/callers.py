"""Checks who may call the service and how often: hashed tokens, and a token bucket per caller."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.bounds import shortened
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, write_whole
from cloister.json_text import read_json

# 256 random bits cannot be guessed, so a plain SHA-256 protects them; no slow hash is needed.
TOKEN_BYTES = 32
# Longest token file: 10,000 callers with the longest names take 1.4 MB.
MOST_FILE = 2 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
# The name of every caller when no token is needed.
ANYONE = "anyone"


@dataclass(frozen=True)
class Callers:
    """The callers of a service.

    Attributes:
        hashes: SHA-256 of each caller's token, by the caller's name; None: no token is needed.
    """

    hashes: Mapping[str, str] | None = None

    def name_of(self, authorization: str) -> str | None:
        """Returns the name of the caller whose token a request has; None: the token is unknown.

        Every hash is compared in constant time, so the time taken reveals nothing about a token.

        Args:
            authorization: The header, `Bearer TOKEN`; empty if the request has none.
        """
        if self.hashes is None:
            return ANYONE
        kind, _, token = authorization.strip().partition(" ")
        shown = _hash(token.strip()) if kind.lower() == "bearer" else ""
        found = [n for n, own in self.hashes.items() if hmac.compare_digest(shown, own)]
        return found[0] if found else None


def read_callers(file: Path) -> Callers:
    """Reads the hashed tokens of a service's callers from a file.

    Raises:
        BadFileError: The file cannot be read, is not a token file, or can be written by others.
    """
    try:
        if file.stat().st_mode & 0o022:
            raise BadFileError(f"{file}: other users may write this file; run chmod 600 {file}")
        with file.open("rb") as opened:
            content = opened.read(MOST_FILE + 1)
    except OSError as error:
        raise bad_file(error, "read") from error
    how = "cloister serve-token NAME --tokens FILE makes one"
    try:
        table = read_json(content, most_bytes=MOST_FILE)
    except ValueError as error:
        raise BadFileError(f"{file}: not a token file ({error}); {how}") from error
    if not isinstance(table, dict) or not table:
        raise BadFileError(
            f"{file}: not a token file (needed is a table of names and hashes); {how}"
        )
    for name, value in table.items():
        if not _NAME.fullmatch(name) or not isinstance(value, str) or not _HASH.fullmatch(value):
            raise BadFileError(f"{file}: {shortened(name)} has no SHA-256 of a token; {how}")
    return Callers(table)


def add_caller(file: Path, name: str) -> str:
    """Makes a token for a new caller, and adds its hash to a token file.

    Args:
        file: The token file; made if absent, readable by its owner only.
        name: The caller's name, as it appears in logs.

    Returns:
        The token. The file keeps only its hash, so show the token now.

    Raises:
        UsageError: The name is not valid, or the file has it already.
        BadFileError: The file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{shortened(name)} given; a name of at most 64 letters, digits, dots, dashes and "
            "underscores is needed"
        )
    table = dict(read_callers(file).hashes or {}) if file.exists() else {}
    if name in table:
        raise UsageError(f"{file}: {name} has a token; delete its line to replace it")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    lines = ",\n".join(f'  "{own}": "{of}"' for own, of in {**table, name: _hash(token)}.items())
    try:
        write_whole(file, f"{{\n{lines}\n}}\n".encode(), 0o600)
    except OSError as error:
        raise bad_file(error, "written") from error
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class CallerRates:
    """Limits each caller's requests by a token bucket that holds at most one minute's requests.

    Args:
        a_minute: Requests per minute; None: no limit.
        clock: Returns the seconds of a clock that never goes back.
    """

    def __init__(self, a_minute: int | None, clock: Callable[[], float]) -> None:
        self._a_minute, self._clock = a_minute, clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, caller: str) -> float:
        """Counts one request of a caller, if its limit allows one.

        Returns:
            0 if the request is allowed. Otherwise the seconds until one is allowed; the refused
            request is not counted.
        """
        if self._a_minute is None:
            return 0.0
        now = self._clock()
        left, since = self._left.get(caller, (float(self._a_minute), now))
        left = min(self._a_minute, left + (now - since) * self._a_minute / 60)
        if left < 1:
            self._left[caller] = (left, now)
            return (1 - left) * 60 / self._a_minute
        self._left[caller] = (left - 1, now)
        return 0.0
