"""The members of a federation: each site is invited, then approved, perhaps revoked."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloister.deployment.enrolment.documents import JoinRequest
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.names import is_name
from cloister.owner_only import FILE

# Days of an invite, which must be renewed after a month, and of a membership, which is reviewed
# every year.
INVITE_LIFE = timedelta(days=30)
MEMBERSHIP_LIFE = timedelta(days=365)


class MemberStatus(StrEnum):
    """The status of a member: invited, approved, revoked."""

    INVITED = "invited"
    APPROVED = "approved"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A site, as the coordinator knows it.

    Attributes:
        standing: Its status.
        token: Token of its invite.
        expires: ISO time until which the invite, or the membership, is valid.
        node_key: Its SuperNode's public key in PEM; empty while invited.
        ledger_key: Its ledger's public key in hex; empty while invited for the first time.
        public_records: The number that it declares; 0 while invited.
        request: Fingerprint of the request that was approved.
        former_keys: Its revoked or replaced node keys, which are never accepted again.
    """

    standing: MemberStatus
    token: str
    expires: str
    node_key: str = ""
    ledger_key: str = ""
    public_records: int = 0
    request: str = ""
    former_keys: tuple[str, ...] = ()

    def may_connect(self, now: datetime) -> bool:
        """Whether it is approved and its membership has not expired."""
        return self.standing is MemberStatus.APPROVED and now < datetime.fromisoformat(self.expires)


Members = Mapping[str, Member]


def invited(members: Members, site: str, now: datetime) -> dict[str, Member]:
    """Adds an invitation; it voids a site's earlier one.

    Raises:
        UsageError: The name is invalid, or the site is a member already.
    """
    if not is_name(site):
        raise UsageError(
            f"{site!r}: not valid as a site's name; no / and \\, and no dot at the start"
        )
    known = members.get(site)
    if known is not None and known.may_connect(now):
        raise UsageError(
            f"{site}: is a member already; approve its request again to renew it, or revoke it "
            "first to invite another under its name"
        )
    fresh = Member(
        standing=MemberStatus.INVITED,
        token=secrets.token_hex(16),
        expires=(now + INVITE_LIFE).isoformat(),
        # Only a revoked site may come back with another ledger.
        ledger_key=""
        if known is None or known.standing is MemberStatus.REVOKED
        else known.ledger_key,
        former_keys=_former(known),
    )
    return {**members, site: fresh}


def approved(members: Members, request: JoinRequest, now: datetime) -> dict[str, Member]:
    """Accepts a site's request: its first one, or a renewal with other keys.

    Raises:
        NetworkError: The request answers no valid invite of this coordinator, its keys belong to
            another member, or its node key was replaced or revoked.
    """
    known = members.get(request.site)
    if known is None or known.token != request.token:
        raise NetworkError(
            f"{request.site}: this request does not answer the last invite of this coordinator; "
            f"cloister member invite {request.site} writes a new one"
        )
    if known.standing is MemberStatus.REVOKED:
        raise NetworkError(
            f"{request.site}: was revoked; cloister member invite {request.site} invites it again"
        )
    if known.standing is MemberStatus.INVITED and now > datetime.fromisoformat(known.expires):
        raise NetworkError(
            f"{request.site}: the invite was valid until {known.expires}; cloister member invite "
            f"{request.site} writes a new one"
        )
    if request.node_key in known.former_keys:
        raise NetworkError(
            f"{request.site}: its node key was revoked or replaced; a new one is needed: "
            "cloister site join --rotate"
        )
    for site, other in members.items():
        if site != request.site and request.node_key in (other.node_key, *other.former_keys):
            raise NetworkError(
                f"{request.site}: has the same key as {site}, but every site needs its own; join "
                "again from the site's own folder"
            )
        if site != request.site and other.ledger_key == request.ledger_key:
            raise NetworkError(
                f"{request.site}: has the same ledger as {site}, but every data set needs its own"
            )
    if known.ledger_key and known.ledger_key != request.ledger_key:
        raise NetworkError(
            f"{request.site}: has another ledger than before, so what its data set spent would be "
            "forgotten; if that is intended, revoke it and invite it again"
        )
    fresh = Member(
        standing=MemberStatus.APPROVED,
        token=request.token,
        expires=(now + MEMBERSHIP_LIFE).isoformat(),
        node_key=request.node_key,
        ledger_key=request.ledger_key,
        public_records=request.public_records,
        request=request.fingerprint,
        former_keys=_former(known, request.node_key),
    )
    return {**members, request.site: fresh}


def revoked(members: Members, site: str) -> dict[str, Member]:
    """Ends a membership or an invitation.

    Raises:
        UsageError: There is no such site.
    """
    if site not in members:
        known = ", ".join(sorted(members)) or "none"
        raise UsageError(f"{site}: not a site of this coordinator; it knows: {known}")
    return {**members, site: dataclasses.replace(members[site], standing=MemberStatus.REVOKED)}


def _former(known: Member | None, now: str = "") -> tuple[str, ...]:
    """The node keys that a site had before."""
    if known is None or known.node_key in ("", now):
        return known.former_keys if known else ()
    return (*known.former_keys, known.node_key)


def connecting(members: Members, now: datetime) -> dict[str, Member]:
    """Returns the members that may connect now."""
    return {site: member for site, member in members.items() if member.may_connect(now)}


def read_members(path: Path) -> dict[str, Member]:
    """Reads the members' file; a missing file counts as empty.

    Raises:
        BadFileError: It is damaged.
    """
    if not path.exists():
        return {}
    try:
        document: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {site: _member(fields) for site, fields in document.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadFileError(
            f"{path}: the members cannot be read ({error}); restore it from a backup"
        ) from error


def _member(fields: dict[str, Any]) -> Member:
    former = tuple(fields.get("former_keys", ()))
    member = Member(
        **{**fields, "standing": MemberStatus(fields["standing"]), "former_keys": former}
    )
    texts = (member.token, member.expires, member.node_key, member.ledger_key, *former)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a key or a time that is not text")
    if datetime.fromisoformat(member.expires).tzinfo is None:
        raise ValueError(f"{member.expires!r} is not a time with a zone")
    return member


@contextmanager
def changing(path: Path) -> Iterator[Callable[[Members], None]]:
    """Locks the members' file for a change.

    Yields:
        A function that writes the new members.

    Raises:
        BadFileError: It cannot be written.
    """

    def write(members: Members) -> None:
        rows = {site: dataclasses.asdict(member) for site, member in members.items()}
        try:
            write_whole(path, json.dumps(rows, indent=2).encode(), mode=0o600)
        except OSError as error:
            raise _unwritable(path, error) from error

    try:
        lock = os.fdopen(os.open(path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, FILE), "w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield write


def _unwritable(path: Path, error: OSError) -> BadFileError:
    return BadFileError(f"{path}: cannot be written ({error}); nothing was changed")
