"""A site's membership in a coordinator's federation: its folder, and joining.

`NAME.federation/` beside `site.toml`:

invite.json     the invite from the coordinator
authority.crt   the coordinator's authority, pinned; two while one follows another (trust.py)
succession-N    the documents in which one authority names the next
node.key        the SuperNode's key; made here, never sent
request.json    the request to the coordinator
welcome.json    the coordinator's answer: the site may connect
coordinator.pub the key whose questions the site answers: from the welcome, or `cloister site trust`
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cloister.client.site_file import SiteFile
from cloister.deployment.enrolment.authority import compare_fingerprints
from cloister.deployment.enrolment.documents import (
    Invite,
    JoinRequest,
    content_of,
    read_approval,
    read_invite,
    read_join_request,
    write_request,
)
from cloister.deployment.enrolment.node_key import create_node_key, load_node_key, public_pem
from cloister.deployment.site.open_ledger import open_ledger
from cloister.deployment.site.trust import settle, trusts
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.owner_only import private_folder, tighten


@dataclass(frozen=True)
class SiteMembership:
    """A site's folder for one federation.

    Attributes:
        path: Absolute.
    """

    path: Path

    @classmethod
    def of(cls, file: SiteFile) -> SiteMembership:
        """The folder that belongs to a `site.toml`."""
        return cls(file.path.parent / f"{file.site.name}.federation")

    @property
    def authority(self) -> Path:
        """The file of the trusted certificates of the coordinator's authority; see trust.py."""
        return self.path / "authority.crt"

    @property
    def node_key(self) -> Path:
        """Returns the file of the SuperNode's key."""
        return self.path / "node.key"

    @property
    def request(self) -> Path:
        """Returns the file of the site's request."""
        return self.path / "request.json"

    @property
    def coordinator(self) -> Path:
        """Returns the file of the coordinator's public key, which verifies its questions."""
        return self.path / "coordinator.pub"

    @property
    def invite(self) -> Invite:
        """Reads the invite that the site accepted.

        Raises:
            BadFileError: The site accepted no invite.
            NetworkError: It is not from a trusted authority.
        """
        path = self.path / "invite.json"
        if not path.exists():
            raise BadFileError(
                f"{self.path}: this site has not joined a federation yet; run cloister site join "
                "with the coordinator's invite"
            )
        invite = read_invite(path, None)
        if not self.pins(invite):
            raise NetworkError(
                f"{path}: is not from the coordinator whose fingerprint was compared "
                f"({self.authority}); join again with the invite"
            )
        return invite

    def close(self) -> None:
        """Makes the folder and the node's key readable by their owner only; the other files are
        public.

        Raises:
            OSError: The folder cannot be made.
        """
        private_folder(self.path)
        tighten(self.node_key)

    def pins(self, invite: Invite) -> bool:
        """Whether an invite is from the coordinator that this site has joined.

        Its authority is a trusted one, or a predecessor of one.
        """
        return trusts(self.path, invite.authority.encode())

    def has_taken(self, path: Path) -> bool:
        """Whether a file is the invite that the site accepted, which may have expired."""
        kept = self.path / "invite.json"
        return kept.exists() and content_of(kept) == content_of(path)

    def is_welcome(self) -> bool:
        """Whether the site has the coordinator's welcome."""
        return (self.path / "welcome.json").exists()


def take_invite(
    file: SiteFile, path: Path, fingerprint: str | None, now: datetime, rotate: bool
) -> JoinRequest:
    """Answers an invite: pins the coordinator's authority, makes the node's key, writes a request.

    Args:
        file: The site's.
        path: The invite.
        fingerprint: The authority's fingerprint, as the coordinator told it over another channel.
        now: The present time.
        rotate: Make a new key if there is one. The accepted invite may be used again, even if it
            has expired.

    Raises:
        UsageError: No fingerprint was given.
        NetworkError: The fingerprint differs, or the invite has expired.
        BadFileError: The invite is damaged or for another site, or the folder cannot be written.
        LedgerError: The site has no ledger, or it is invalid.
    """
    place, content = SiteMembership.of(file), content_of(path)
    invite = read_invite(path, None if place.has_taken(path) else now, content)
    if invite.site != file.site.name:
        raise BadFileError(f"{path}: invites {invite.site}, but this site is {file.site.name}")
    if fingerprint is None:
        raise UsageError(
            "--fingerprint: missing; ask the coordinator over another channel (telephone) for the "
            f"authority's and compare: this invite's is {invite.fingerprint}"
        )
    compare_fingerprints(
        fingerprint,
        invite.fingerprint,
        f"{path}: its authority's fingerprint is {invite.fingerprint}, but {fingerprint} was "
        "given; the invite was changed on its way, or is from another coordinator: do not use it",
    )
    if place.authority.exists() and not place.pins(invite):
        raise NetworkError(
            f"{place.path}: this site has joined another coordinator already; move that folder "
            "away to change"
        )
    ledger = open_ledger(file)
    ledger_key = load_key(key_file(file.ledger))
    fresh = rotate or not place.node_key.exists()
    try:
        place.close()
        if fresh:  # before the key that it belonged to
            (place.path / "welcome.json").unlink(missing_ok=True)
        key = create_node_key(place.node_key) if fresh else load_node_key(place.node_key)
        write_whole(place.authority, invite.authority.encode())
        write_whole(place.path / "invite.json", content)
        settle(place.path, now)
    except OSError as error:
        raise BadFileError(
            f"{place.path}: cannot be written ({error}); correct this first"
        ) from error
    request = JoinRequest(
        site=file.site.name,
        token=invite.token,
        node_key=public_pem(key),
        ledger_key=public_hex(ledger_key),
        public_records=file.site.public_records,
    )
    assert ledger.public_key == request.ledger_key
    write_request(place.request, request, key, ledger_key)
    return request


def take_welcome(file: SiteFile, path: Path, now: datetime) -> str:
    """Accepts the coordinator's answer; returns the time until which the site may connect.

    The site then answers the questions of the key in it. An old welcome without a key changes
    nothing, and neither does accepting the last welcome again, because the key may have been
    renewed since.

    Raises:
        BadFileError: The site sent no request, or the file is damaged or for another site.
        NetworkError: It is not from the coordinator, answers another request, or is older than the
            last one.
    """
    place = SiteMembership.of(file)
    if not place.request.exists():
        raise BadFileError(
            f"{place.path}: this site has sent no request; join with the coordinator's invite first"
        )
    content = content_of(path)
    assert place.invite  # is of what the site trusts
    welcome = read_approval(path, place.authority.read_bytes(), now, content)
    asked = read_join_request(place.request)
    if welcome.site != file.site.name or welcome.request != asked.fingerprint:
        raise NetworkError(
            f"{path}: answers another request than this site's last one; send request.json again"
        )
    if asked.node_key != public_pem(load_node_key(place.node_key)):
        raise NetworkError(
            f"{place.request}: has another key than {place.node_key}; join again with the invite "
            "and send the new request"
        )
    is_known = _follows(place, path, content, welcome.expires)
    try:
        place.close()
        if welcome.coordinator_key and not (is_known and place.coordinator.exists()):
            write_whole(place.coordinator, welcome.coordinator_key.encode() + b"\n")
        write_whole(place.path / "welcome.json", content)
    except OSError as error:
        raise BadFileError(
            f"{place.path}: cannot be written ({error}); correct this first"
        ) from error
    return welcome.expires


def _follows(place: SiteMembership, path: Path, content: bytes, expires: str) -> bool:
    """Whether a welcome is the last accepted one.

    Raises:
        NetworkError: It is older, so the coordinator may have withdrawn its key.
    """
    kept = place.path / "welcome.json"
    try:
        last = content_of(kept)
        until = read_approval(kept, place.authority.read_bytes(), None, last).expires
    except (BadFileError, NetworkError):  # there is none, or it is no longer valid
        return False
    if datetime.fromisoformat(expires) < datetime.fromisoformat(until):
        raise NetworkError(
            f"{path}: is older than the last accepted welcome (until {until}); use the "
            "newest, or ask the coordinator to approve the request again"
        )
    return last == content
