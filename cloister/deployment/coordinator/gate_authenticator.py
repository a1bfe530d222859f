"""Authenticates requests at the gate: each shows a member's key and is signed by it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cloister.deployment.coordinator.members import connecting, read_members
from cloister.deployment.enrolment.node_key import is_node_signed
from cloister.errors import BadFileError

log = logging.getLogger(__name__)

KEY_HEADER, SIGNATURE_HEADER, TIME_HEADER = "flwr-public-key", "flwr-signature", "flwr-timestamp"
PASSED_ON = (b"content-type", b"accept")
# Most headers of a request, and most bytes: a SuperNode sends about ten, in 1 kB.
MOST_HEADERS, MOST_HEADER_BYTES = 64, 16_384


class MemberAuthenticator:
    """Finds the member of a request, by the current members' file.

    Args:
        members: The file.
        now: The present time.
    """

    def __init__(self, members: Path, now: Callable[[], datetime]) -> None:
        self._members, self._now = members, now
        self._stamp: tuple[int, int, int] | None = None
        self._keys: Mapping[str, str] = {}
        self._until: datetime | None = None

    def site_of(self, header: str) -> str | None:
        """Returns the member whose key a request shows; None if no member has that key."""
        try:
            key = base64.b64decode(header, validate=True).decode()
        except ValueError:
            return None
        return self._current().get(key)

    def _current(self) -> Mapping[str, str]:
        now = self._now()
        try:
            state = self._members.stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
            if stamp != self._stamp or (self._until is not None and now >= self._until):
                allowed = connecting(read_members(self._members), now)
                self._keys = {member.node_key: site for site, member in allowed.items()}
                ends = (datetime.fromisoformat(member.expires) for member in allowed.values())
                self._until = min(ends, default=None)
                self._stamp = stamp
        except (OSError, BadFileError) as error:
            log.error("no member is admitted: %s", error)
            return {}
        return self._keys


def passed_on(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """The headers for the SuperLink; None if one is not ASCII or duplicated, as gate and SuperLink
    might then use different ones."""
    try:
        pairs = [
            (name.decode("ascii"), value.decode("ascii"))
            for name, value in headers
            if name in PASSED_ON or name.startswith(b"flwr-")
        ]
    except UnicodeDecodeError:
        return None
    return dict(pairs) if len(dict(pairs)) == len(pairs) else None


def are_too_many(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request has more headers than any node sends."""
    size = sum(len(name) + len(value) for name, value in headers)
    return len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES


def holds_its_key(headers: Mapping[str, str]) -> bool:
    """Whether the key that a request shows signed its time, as Flower's nodes do."""
    try:
        key = base64.b64decode(headers[KEY_HEADER], validate=True).decode()
        signature = base64.b64decode(headers[SIGNATURE_HEADER], validate=True)
        return is_node_signed(headers[TIME_HEADER].encode(), signature, key)
    except (KeyError, ValueError):
        return False
