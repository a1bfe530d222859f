"""The coordinator's certificate authority, and the certificates that it issues for its endpoint.

The authority is made once and outlives everything: sites pin it by its fingerprint. What it issues
is short-lived and renewed by itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.errors import BadFileError, NetworkError
from cloister.files import write_whole

# What `cryptography` raises of bytes that are no certificate, or one that it does not know.
NO_CERTIFICATE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)

# An authority outlives the studies of a consortium; sites would have to pin another one.
AUTHORITY_LIFE = timedelta(days=3650)
# What an endpoint's certificate lives for: 90 days is what public authorities settled on; renewed
# from half of it on, it can be unreachable for six weeks and still be renewed in time.
ENDPOINT_LIFE = timedelta(days=90)
# Bytes of a common name (X.520: 64), with room for a word; clients compare SANs, not this.
LONGEST_CN = 54
# Clocks differ: what is issued now must hold on a machine whose clock is late.
CLOCK_ALLOWANCE = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority.

    Attributes:
        certificate: Its own, self-signed; public.
        key: Of the authority; never leaves the coordinator.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate, as sites keep it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, body: bytes) -> bytes:
        """Signs some bytes (ECDSA, SHA-256)."""
        return self.key.sign(body, ec.ECDSA(hashes.SHA256()))


def create_authority(folder: Path, name: str, now: datetime) -> Authority:
    """Makes an authority and writes `ca.key` (0600) and `ca.crt`.

    Raises:
        BadFileError: There is one already, or it cannot be written.
    """
    if (folder / "ca.key").exists():
        raise BadFileError(f"{folder / 'ca.key'}: an authority is here already, and stays")
    if (folder / "ca.crt").exists():
        raise BadFileError(
            f"{folder / 'ca.crt'}: an authority without its key; restore ca.key from its backup, "
            "or remove ca.crt if no site pins it"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _called(name, " authority")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ALLOWANCE)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        write_whole(folder / "ca.crt", certificate.public_bytes(Encoding.PEM))
        write_whole(folder / "ca.key", _private_pem(key), mode=0o600)
    except OSError as error:
        raise BadFileError(f"{folder}: the authority cannot be written ({error})") from error
    return Authority(certificate, key)


def load_authority(folder: Path) -> Authority:
    """Reads an authority.

    Raises:
        BadFileError: It is missing, damaged, or key and certificate do not belong together.
    """
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, TypeError, *NO_CERTIFICATE) as error:
        raise BadFileError(
            f"{folder}: the authority cannot be read ({error}); restore ca.key and ca.crt from "
            "their backup, as every site pins them"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _differ(key, certificate):
        raise BadFileError(f"{folder}: ca.key is not the key of ca.crt; restore both together")
    return Authority(certificate, key)


def issue_endpoint(
    authority: Authority, hosts: Sequence[str], now: datetime, life: timedelta = ENDPOINT_LIFE
) -> tuple[bytes, bytes]:
    """A new key and a certificate for the coordinator's endpoint.

    Args:
        authority: Who signs.
        hosts: DNS names and IP addresses under which it is reached; all of them become SANs.
        now: The present time, with its zone.
        life: How long it holds; no longer than the authority.

    Returns:
        Key and certificate in PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_called(hosts[0]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ALLOWANCE)
        .not_valid_after(min(now + life, authority.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_san(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return _private_pem(key), certificate.public_bytes(Encoding.PEM)


def is_due(
    pair: tuple[bytes, bytes], authority: Authority, hosts: Sequence[str], now: datetime
) -> bool:
    """Whether an endpoint's key and certificate are to be made anew.

    They are past half their life, of other hosts or another authority, damaged, or do not belong
    together, as after a crash between writing one and the other.
    """
    try:
        key = load_pem_private_key(pair[0], password=None)
        certificate = x509.load_pem_x509_certificate(pair[1])
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (TypeError, InvalidSignature, x509.ExtensionNotFound, *NO_CERTIFICATE):
        return True
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or _differ(key, certificate)
        or now > first + (last - first) / 2
        or set(names) != {_san(host) for host in hosts}
    )


def days_left(pem: bytes, now: datetime) -> int:
    """Whole days until a certificate is over."""
    return (over_at(pem) - now).days


def over_at(pem: bytes) -> datetime:
    """When a certificate is over."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, in groups that two people can compare over a telephone.

    Raises:
        NetworkError: It is no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        # One certificate and nothing beside it: the site will trust the whole text.
        if pem.strip() != certificate.public_bytes(Encoding.PEM).strip():
            raise ValueError("more than one certificate")
        digest = certificate.fingerprint(hashes.SHA256()).hex()
    except NO_CERTIFICATE as error:
        raise NetworkError("the authority's certificate cannot be read; ask for the file anew") \
            from error  # fmt: skip
    return grouped(digest)


def grouped(digest: str) -> str:
    """A SHA-256 in hex, in eight groups."""
    return "-".join(digest[at : at + 8] for at in range(0, len(digest), 8))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two people read the same fingerprint, however they group or capitalise it."""
    return _digits(one) == _digits(other) != ""


def _digits(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter in "0123456789abcdef")


def is_signed_by(pem: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the key of a certificate signed some bytes."""
    try:
        key = x509.load_pem_x509_certificate(pem).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, *NO_CERTIFICATE):
        return False
    return True


def _differ(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    return key.public_key() != certificate.public_key()


def _called(name: str, word: str = "") -> x509.Name:
    short = name.encode()[:LONGEST_CN].decode(errors="ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short + word)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
