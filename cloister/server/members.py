"""Who may take part: each site's way from invited to approved to revoked, as one frozen value."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.names import is_name
from cloister.provisioning.papers import Request

# An invite that nobody answered in a month is asked for anew; a membership is reviewed every year.
INVITE_LIFE = timedelta(days=30)
MEMBERSHIP_LIFE = timedelta(days=365)


class Standing(StrEnum):
    """How far a site has come."""

    INVITED = "invited"
    APPROVED = "approved"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A site, as the coordinator knows it.

    Attributes:
        standing: How far it has come.
        token: Of its invite.
        expires: ISO time until which the invite, or the membership, holds.
        node_key: Its SuperNode's public key in PEM; empty while invited.
        ledger_key: Its ledger's public key in hex; empty while invited.
        public_records: The number that it declares; 0 while invited.
        request: Fingerprint of the request that was approved.
    """

    standing: Standing
    token: str
    expires: str
    node_key: str = ""
    ledger_key: str = ""
    public_records: int = 0
    request: str = ""

    def may_connect(self, now: datetime) -> bool:
        """Whether it is approved and its membership is not over."""
        return self.standing is Standing.APPROVED and now < datetime.fromisoformat(self.expires)


Members = Mapping[str, Member]


def invited(members: Members, site: str, now: datetime) -> dict[str, Member]:
    """Adds an invitation; a site's earlier one is void with it.

    Raises:
        UsageError: That is no name, or the site is a member already.
    """
    if not is_name(site):
        raise UsageError(f"{site!r}: no name for a site; it holds neither / nor \\, no dot first")
    known = members.get(site)
    if known is not None and known.may_connect(now):
        raise UsageError(
            f"{site}: is a member already; revoke it first to invite another under its name, or "
            "approve a new request of its own to renew it (cloister site join --renew)"
        )
    fresh = Member(
        standing=Standing.INVITED,
        token=secrets.token_hex(16),
        expires=(now + INVITE_LIFE).isoformat(),
    )
    return {**members, site: fresh}


def approved(members: Members, request: Request, now: datetime) -> dict[str, Member]:
    """Takes a site's request: its first one, or a renewal with other keys.

    Raises:
        NetworkError: No invite of this coordinator goes with it, or the invite is void; or the
            keys are another member's.
    """
    known = members.get(request.site)
    if known is None or known.token != request.token:
        raise NetworkError(
            f"{request.site}: this request answers no invite of this coordinator, or an older one; "
            f"cloister member invite {request.site} writes a new one"
        )
    if known.standing is Standing.REVOKED:
        raise NetworkError(
            f"{request.site}: was revoked; cloister member invite {request.site} invites it anew"
        )
    if known.standing is Standing.INVITED and now > datetime.fromisoformat(known.expires):
        raise NetworkError(
            f"{request.site}: the invite was valid until {known.expires}; cloister member invite "
            f"{request.site} writes a new one"
        )
    for site, other in members.items():
        if site != request.site and other.node_key == request.node_key:
            raise NetworkError(
                f"{request.site}: brings the key of {site}; two sites never share one: join again "
                "from the site's own folder"
            )
        if site != request.site and other.ledger_key == request.ledger_key:
            raise NetworkError(
                f"{request.site}: brings the ledger of {site}; every data set has one of its own"
            )
    if known.ledger_key and known.ledger_key != request.ledger_key:
        raise NetworkError(
            f"{request.site}: brings another ledger than before: what its data set spent would be "
            "forgotten; revoke and invite it anew if that is meant"
        )
    fresh = Member(
        standing=Standing.APPROVED,
        token=request.token,
        expires=(now + MEMBERSHIP_LIFE).isoformat(),
        node_key=request.node_key,
        ledger_key=request.ledger_key,
        public_records=request.public_records,
        request=request.fingerprint,
    )
    return {**members, request.site: fresh}


def revoked(members: Members, site: str) -> dict[str, Member]:
    """Ends a membership or an invitation.

    Raises:
        UsageError: There is no such site.
    """
    if site not in members:
        known = ", ".join(sorted(members)) or "none"
        raise UsageError(f"{site}: no site of this coordinator; it knows: {known}")
    return {**members, site: dataclasses.replace(members[site], standing=Standing.REVOKED)}


def connecting(members: Members, now: datetime) -> dict[str, Member]:
    """Those that may connect now."""
    return {site: member for site, member in members.items() if member.may_connect(now)}


def read_members(path: Path) -> dict[str, Member]:
    """Reads the members' file; one that is not there holds nobody.

    Raises:
        BadFileError: It is damaged.
    """
    if not path.exists():
        return {}
    try:
        document: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            site: Member(**{**fields, "standing": Standing(fields["standing"])})
            for site, fields in document.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadFileError(
            f"{path}: the members cannot be read ({error}); restore it from a backup"
        ) from error


@contextmanager
def changing(path: Path) -> Iterator[Callable[[Members], None]]:
    """Holds the members' file for a change that nobody else interrupts.

    Yields:
        What writes the new members.
    """
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda members: write_whole(
            path,
            json.dumps(
                {site: dataclasses.asdict(member) for site, member in members.items()}, indent=2
            ).encode(),
            mode=0o600,
        )
