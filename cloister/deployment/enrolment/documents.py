"""The three documents with which a site joins: invite, request, welcome. None is secret.

    coordinator  -- invite  -->  site          the coordinator's name, address and authority
    coordinator  <-- request --  site          the site's two public keys, signed by both
    coordinator  -- welcome -->  site          the request was approved, and the key that will sign
                                               the coordinator's questions; signed by the authority

They may be sent by any means. They are safe because each side compares the other's fingerprint over
another channel: an invite's is its authority's, a request's is the hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.deployment.enrolment.address import split_address
from cloister.deployment.enrolment.authority import Authority, fingerprint, grouped, is_signed_by
from cloister.deployment.enrolment.node_key import is_node_signed, sign_as_node
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole
from cloister.json_text import read_json
from cloister.ledger.signing import is_signed
from cloister.names import is_name

# Present version of each document; earlier versions can be read. Version 2 of the welcome adds the
# key that signs the coordinator's questions.
VERSIONS = {"invite": 1, "request": 1, "welcome": 2}
# Larger than any document; a larger file is not read to its end.
LARGEST = 65_536
# The signer of each kind of document.
SIGNERS = {"invite": {"authority"}, "request": {"node", "ledger"}, "welcome": {"authority"}}
# The version of a document in which a field was added; in earlier versions the field is empty.
SINCE = {"coordinator_key": 2}
# Most records that a site may declare, far more than any hospital has. Without a limit, JSON allows
# numbers with thousands of digits.
MOST_RECORDS = 10**12

Paper = TypeVar("Paper", "Invite", "JoinRequest", "Approval")


@dataclass(frozen=True, kw_only=True)
class Invite:
    """An invitation to a site to join a federation.

    Attributes:
        coordinator: Name of the inviting coordinator.
        site: Name of the invited site.
        address: `host:port` of the coordinator's endpoint, as the site reaches it.
        authority: The coordinator's certificate authority in PEM.
        token: Names this invitation; one request answers it.
        expires: ISO time after which it is void.
    """

    coordinator: str
    site: str
    address: str
    authority: str
    token: str
    expires: str

    @property
    def fingerprint(self) -> str:
        """The authority's fingerprint, to be compared over another channel."""
        return fingerprint(self.authority.encode())


@dataclass(frozen=True, kw_only=True)
class JoinRequest:
    """A site's answer to an invite.

    Attributes:
        site: Its name.
        token: Token of the invite.
        node_key: Its SuperNode's public key in PEM.
        ledger_key: The public key of its ledger in hex: signs its releases and certificates.
        public_records: The declared, public number of its records or persons.
    """

    site: str
    token: str
    node_key: str
    ledger_key: str
    public_records: int

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content, to be compared over another channel."""
        return grouped(hashlib.sha256(canonical(asdict(self))).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Approval:
    """The coordinator's answer to a request.

    Attributes:
        coordinator: Name of the approving coordinator.
        site: Name of the approved site.
        request: Fingerprint of the approved request.
        expires: ISO time until which the site may connect.
        coordinator_key: Public half of the key that signs the coordinator's questions, in hex;
            empty in a welcome of version 1.
    """

    coordinator: str
    site: str
    request: str
    expires: str
    coordinator_key: str


def write_invite(path: Path, invite: Invite, authority: Authority) -> None:
    """Writes an invite, signed by its authority.

    Raises:
        BadFileError: It cannot be written.
    """
    signature = authority.sign(_statement("invite", asdict(invite)))
    _write(path, "invite", asdict(invite), {"authority": signature.hex()})


def write_request(
    path: Path,
    request: JoinRequest,
    node_key: ec.EllipticCurvePrivateKey,
    ledger_key: Ed25519PrivateKey,
) -> None:
    """Writes a request, signed by both of the site's keys, which proves that it has them.

    Raises:
        BadFileError: It cannot be written.
    """
    body = _statement("request", asdict(request))
    signatures = {
        "node": sign_as_node(node_key, body).hex(),
        "ledger": ledger_key.sign(body).hex(),
    }
    _write(path, "request", asdict(request), signatures)


def write_welcome(path: Path, welcome: Approval, authority: Authority) -> None:
    """Writes a welcome, signed by the authority.

    Raises:
        BadFileError: It cannot be written.
    """
    signature = authority.sign(_statement("welcome", asdict(welcome)))
    _write(path, "welcome", asdict(welcome), {"authority": signature.hex()})


def content_of(path: Path) -> bytes:
    """Reads a file, up to the most bytes that an enrolment document can have.

    Raises:
        BadFileError: It cannot be read, or is longer than any document.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read ({error})") from error
    if len(content) > LARGEST:
        raise _no_paper(path)
    return content


def kind_of(path: Path) -> str:
    """Returns which enrolment document a file holds.

    Raises:
        BadFileError: It is not an enrolment document.
    """
    return str(_document(path, content_of(path))["cloister"])


def read_invite(path: Path, now: datetime | None, content: bytes | None = None) -> Invite:
    """Reads and checks an invitation.

    Args:
        path: Its file.
        now: The present time; None: it was answered before and may have expired.
        content: The file's content if it was read already, so that exactly the checked bytes are
            kept.

    Raises:
        BadFileError: It is damaged or not an invite.
        NetworkError: Its signature is invalid, or it has expired.
    """
    invite, body, signatures = _read(path, "invite", Invite, content)
    if not is_signed_by(invite.authority.encode(), body, signatures["authority"]):
        raise NetworkError(
            f"{path}: was changed after it was signed; ask the coordinator for it again"
        )
    if now is not None:
        _in_time(path, invite.expires, now, "ask the coordinator for another invite")
    try:
        split_address(invite.address, "address")
    except UsageError as error:
        raise BadFileError(f"{path}: {error}; ask the coordinator for another invite") from error
    return invite


def read_join_request(path: Path) -> JoinRequest:
    """Reads and checks a site's request to join.

    Raises:
        BadFileError: It is damaged or not a request.
        NetworkError: It is not signed by the keys in it.
    """
    request, body, signatures = _read(path, "request", JoinRequest, None)
    if not (
        is_node_signed(body, signatures["node"], request.node_key)
        and is_signed(body, signatures["ledger"], request.ledger_key)
    ):
        raise NetworkError(
            f"{path}: is not signed by the keys in it; ask {request.site} for its request "
            "again (cloister site join)"
        )
    return request


def read_approval(
    path: Path, authority: bytes, now: datetime | None, content: bytes | None = None
) -> Approval:
    """Reads and checks the coordinator's approval of a site.

    Args:
        path: Its file.
        authority: The certificate of the coordinator's authority that the site pinned.
        now: The present time; None: it was accepted before and may have expired.
        content: The file's content if it was read already.

    Raises:
        BadFileError: It is damaged or not a welcome.
        NetworkError: It is not signed by that authority, or has expired.
    """
    welcome, body, signatures = _read(path, "welcome", Approval, content)
    if not is_signed_by(authority, body, signatures["authority"]):
        raise NetworkError(
            f"{path}: is not signed by the coordinator whose invite was accepted; ask for it again"
        )
    if now is not None:
        _in_time(path, welcome.expires, now, "ask the coordinator to approve the request again")
    return welcome


def _write(path: Path, kind: str, said: Mapping[str, Any], signatures: Mapping[str, str]) -> None:
    version = VERSIONS[kind]
    document = {"cloister": kind, "version": version, "body": said, "signatures": signatures}
    try:
        write_whole(path, json.dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written ({error}); name another place") from error


def _statement(kind: str, said: Mapping[str, Any], version: int | None = None) -> bytes:
    """Returns the signed bytes, which no other document and no ledger entry can share."""
    return f"cloister {kind} {version or VERSIONS[kind]}\n".encode() + canonical(said)


def _document(path: Path, content: bytes) -> dict[str, Any]:
    try:
        document = read_json(content, most_bytes=LARGEST)
    except ValueError as error:
        raise BadFileError(f"{path}: cannot be read ({error}); ask for it again") from error
    if (
        not isinstance(document, dict)
        or set(document) != {"cloister", "version", "body", "signatures"}
        or document["cloister"] not in list(SIGNERS)
    ):
        raise _no_paper(path)
    version, newest = document["version"], VERSIONS[document["cloister"]]
    if type(version) is not int or not 1 <= version <= newest:
        raise BadFileError(
            f"{path}: of version {shortened(version)}, but this program reads {newest}; both sides "
            "need the same version of cloister"
        )
    return document


def _no_paper(path: Path) -> BadFileError:
    return BadFileError(
        f"{path}: not an invite, request or welcome; give the file that the other side sent"
    )


def _read(
    path: Path, kind: str, form: type[Paper], content: bytes | None
) -> tuple[Paper, bytes, dict[str, bytes]]:
    document = _document(path, content_of(path) if content is None else content)
    if document["cloister"] != kind:
        raise BadFileError(f"{path}: is the {document['cloister']}; the {kind} is needed")
    body, stated, version = document["body"], document["signatures"], document["version"]
    kinds = {
        field.name: int if field.name == "public_records" else str
        for field in fields(form)
        if SINCE.get(field.name, 1) <= version
    }
    later: dict[str, Any] = {field.name: "" for field in fields(form) if field.name not in kinds}
    try:
        if (
            not isinstance(body, dict)
            or set(body) != set(kinds)
            or any(type(body[name]) is not kinds[name] for name in kinds)
            or not all(is_name(body.get(name, "none")) for name in ("site", "coordinator"))
            or not 1 <= body.get("public_records", 1) <= MOST_RECORDS
            or not all(
                re.fullmatch("[0-9a-f]{64}", body.get(name, "0" * 64))
                for name in ("ledger_key", "coordinator_key")
            )
        ):
            raise ValueError(kind)
        statement = _statement(kind, body, version)
    except ValueError as error:  # also raised for text that is not valid Unicode
        raise BadFileError(f"{path}: the {kind} is damaged; ask for it again") from error
    try:
        if set(stated) != SIGNERS[kind]:
            raise ValueError(kind)
        signatures = {name: bytes.fromhex(value) for name, value in stated.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadFileError(
            f"{path}: the {kind}'s signatures are damaged; ask for it again"
        ) from error
    return form(**body, **later), statement, signatures


def _in_time(path: Path, expires: str, now: datetime, remedy: str) -> None:
    try:
        over = now > datetime.fromisoformat(expires)
    except (ValueError, TypeError) as error:
        raise BadFileError(f"{path}: {shortened(expires)} is not a time with a zone") from error
    if over:
        raise NetworkError(f"{path}: was valid until {shortened(expires)[1:-1]}; {remedy}")
