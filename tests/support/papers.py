"""Enrolment documents, keys and coordinators for tests; cached, because making keys is slow."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.deployment.enrolment.authority import Authority, create_authority
from cloister.deployment.enrolment.documents import Invite, JoinRequest
from cloister.deployment.enrolment.node_key import public_pem
from cloister.ledger.signing import public_hex

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Keys:
    """Both keys of a site."""

    node: ec.EllipticCurvePrivateKey
    ledger: Ed25519PrivateKey


@cache
def keys(name: str) -> Keys:
    """A site's keys; the same for one name."""
    return Keys(ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate())


@cache
def _authority(name: str) -> Authority:
    with TemporaryDirectory() as folder:
        return create_authority(Path(folder), name, NOW)


def authority(name: str = "hub") -> Authority:
    """An authority that began on `NOW`; the same for one name."""
    return _authority(name)


def invite(site: str = "ward", **changes: str) -> Invite:
    fields = {
        "coordinator": "hub",
        "site": site,
        "address": "fed.example.org:9443",
        "authority": authority().pem.decode(),
        "token": "t" * 32,
        "expires": (NOW + 30 * DAY).isoformat(),
    }
    return Invite(**{**fields, **changes})


def request(
    site: str = "ward", token: str = "t" * 32, node: str = "", ledger: str = "", records: int = 1200
) -> JoinRequest:
    """A site's request, with its own keys unless others' are named."""
    return JoinRequest(
        site=site,
        token=token,
        node_key=public_pem(keys(node or site).node),
        ledger_key=public_hex(keys(ledger or site).ledger),
        public_records=records,
    )
