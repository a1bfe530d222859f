"""The document in which an authority names its successor, signed by the authority.

A site that trusts an authority also trusts its successor after comparing the successor's
fingerprint over another channel. It trusts the former one only until the time in the document.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.canonical import canonical
from cloister.deployment.enrolment.authority import (
    UNREADABLE,
    Authority,
    fingerprint,
    is_signed_by,
    read_certificates,
)
from cloister.deployment.enrolment.documents import LARGEST, content_of
from cloister.errors import BadFileError, NetworkError
from cloister.files import write_whole
from cloister.json_text import read_json
from cloister.names import is_name
from cloister.printable import one_line

KIND, VERSION = "succession", 1
# Most characters of a certificate in PEM; ours have about 700.
LONGEST_PEM = 4096


@dataclass(frozen=True, kw_only=True)
class Succession:
    """Names an authority's successor.

    Attributes:
        coordinator: The coordinator's name.
        authority: The successor's certificate in PEM.
        former_until: ISO time with a zone until which the former authority is trusted.
    """

    coordinator: str
    authority: str
    former_until: str

    @property
    def fingerprint(self) -> str:
        """The successor's fingerprint, to be compared over another channel."""
        return fingerprint(self.authority.encode())

    def is_over(self, now: datetime) -> bool:
        """Whether the former authority is no longer trusted."""
        return now >= datetime.fromisoformat(self.former_until)


def write_succession(path: Path, paper: Succession, former: Authority) -> None:
    """Writes a succession, signed by the former authority.

    Raises:
        BadFileError: It cannot be written.
    """
    document = {
        "cloister": KIND,
        "version": VERSION,
        "body": asdict(paper),
        "signature": former.sign(_statement(asdict(paper))).hex(),
    }
    try:
        write_whole(path, json.dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written ({error}); name another place") from error


def read_succession(path: Path, trusted: bytes, content: bytes | None = None) -> Succession:
    """Reads and checks the document that names the next authority.

    Args:
        path: Its file.
        trusted: Certificates in PEM; one of them must have signed it.
        content: The file's content if it was read already.

    Raises:
        BadFileError: It is damaged or not a succession.
        NetworkError: None of these authorities signed it.
    """
    paper, signature = _parsed(path, content_of(path) if content is None else content)
    if not is_signed_by(trusted, _statement(asdict(paper)), signature):
        raise NetworkError(
            f"{path}: is not signed by the newest authority that this site trusts; ask the "
            "coordinator for the file again, and for those of earlier rotations "
            "(succession-N.json)"
        )
    return paper


def _statement(said: dict[str, Any]) -> bytes:
    """Returns the signed bytes, which no other document can share."""
    return f"cloister {KIND} {VERSION}\n".encode() + canonical(said)


def _parsed(path: Path, content: bytes) -> tuple[Succession, bytes]:
    try:
        document = read_json(content, most_bytes=LARGEST)
        if not isinstance(document, dict) or document.get("cloister") != KIND:
            raise BadFileError(
                f"{path}: not a succession; give the file that cloister server rotate-ca wrote"
            )
        body = document["body"]
        if (
            set(document) != {"cloister", "version", "body", "signature"}
            or type(document["version"]) is not int
            or document["version"] != VERSION
            or not isinstance(body, dict)
            or set(body) != {"coordinator", "authority", "former_until"}
            or not all(isinstance(value, str) for value in body.values())
            or not is_name(body["coordinator"])
            or len(body["authority"]) > LONGEST_PEM
            or datetime.fromisoformat(body["former_until"]).tzinfo is None
            or not _is_authority(body["authority"].encode())
        ):
            raise ValueError("a field is missing, unknown or out of its bounds")
        _statement(body)
        return Succession(**body), bytes.fromhex(document["signature"])
    except (ValueError, TypeError, KeyError, RecursionError, NetworkError) as error:
        raise BadFileError(
            f"{path}: the succession is damaged ({one_line(str(error), 200)}); ask the coordinator "
            "for it again"
        ) from error


def _is_authority(pem: bytes) -> bool:
    """Whether the text is one self-signed certificate of our kind that may sign others."""
    fingerprint(pem)
    certificate = read_certificates(pem)[0]
    try:
        certificate.verify_directly_issued_by(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        key = certificate.public_key()
    except UNREADABLE:
        return False
    return basic.ca and isinstance(key, ec.EllipticCurvePublicKey)


def certificates(pem: bytes) -> list[bytes]:
    """The certificates in a text, each in PEM; empty if it cannot be read."""
    try:
        found = read_certificates(pem)
    except ValueError:
        return []
    return [certificate.public_bytes(Encoding.PEM) for certificate in found]
