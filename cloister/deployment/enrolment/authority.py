"""The coordinator's certificate authority, and the certificates that it issues for its endpoint.

Sites pin the authority by its fingerprint; only a document that it signed can name its successor
(succession.py). Its certificates are short-lived and renewed automatically. Its key may be
encrypted or kept elsewhere; it is opened only to sign.
"""

from __future__ import annotations

import ipaddress
import re
import warnings
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
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.deployment.enrolment import sealed_key
from cloister.deployment.enrolment.passphrase import Unlock, unlock
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole

# Days of an authority: longer than a consortium's studies, since sites would have to pin a new one.
AUTHORITY_LIFE = timedelta(days=3650)
# Life of an endpoint's certificate: 90 days as at public authorities. It is renewed after half of
# it, so renewal may fail for six weeks without harm.
ENDPOINT_LIFE = timedelta(days=90)
# Most bytes of a common name (X.520: 64), less room for a word; clients compare SANs, not this.
LONGEST_CN = 54
# Exceptions of `cryptography` for a certificate or key that is damaged or of another kind; not all
# are ValueErrors.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
# Clocks differ: a new certificate must be valid on a machine whose clock is late.
CLOCK_ALLOWANCE = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority.

    Attributes:
        certificate: Its self-signed certificate; public.
        key: Its private key, which never leaves the coordinator.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate in PEM, as sites keep it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, body: bytes) -> bytes:
        """Signs some bytes (ECDSA, SHA-256)."""
        return self.key.sign(body, ec.ECDSA(hashes.SHA256()))


def create_authority(
    folder: Path, name: str, now: datetime, passphrase: bytes | None = None, stem: str = "ca"
) -> Authority:
    """Makes an authority and writes `ca.key` (0600) and `ca.crt`.

    Args:
        folder: The folder for the files.
        name: Name of the coordinator.
        now: The present time, with its zone.
        passphrase: Encrypts the key; None: the key is not encrypted.
        stem: The files' name without suffix.

    Raises:
        BadFileError: An authority exists already, or it cannot be written.
        UsageError: The passphrase is too short or too long.
    """
    place, public = folder / f"{stem}.key", folder / f"{stem}.crt"
    if place.exists():
        raise BadFileError(f"{place}: exists already, and an authority is not replaced")
    if public.exists():
        raise BadFileError(
            f"{public}: the key of this authority is missing; restore {place.name} from its "
            f"backup, or remove {public.name} if no site pins it"
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
    pem = sealed_key.in_pem(key, certificate, passphrase)
    try:
        write_whole(public, certificate.public_bytes(Encoding.PEM))
        write_whole(place, pem, mode=0o600)
    except OSError as error:
        raise BadFileError(f"{folder}: the authority cannot be written ({error})") from error
    return Authority(certificate, key)


def load_authority(folder: Path, passphrase: Unlock = unlock) -> Authority:
    """Reads a certificate authority from its folder.

    Args:
        folder: The coordinator's.
        passphrase: Returns the passphrase; called only if the key is encrypted.

    Raises:
        BadFileError: It is missing or damaged, key and certificate do not belong together, or the
            passphrase is wrong.
        UsageError: The key is encrypted, and there is no passphrase.
    """
    certificate = load_certificate(folder)
    try:
        pem = (folder / "ca.key").read_bytes()
        key = (
            sealed_key.open_sealed(pem, passphrase(), sealed_key.salt_of(certificate))
            if sealed_key.is_sealed(pem)
            else load_pem_private_key(pem, password=None)
        )
    except (OSError, *UNREADABLE) as error:
        raise _unreadable(folder, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _differ(key, certificate):
        raise BadFileError(f"{folder}: ca.key is not the key of ca.crt; restore both together")
    return Authority(certificate, key)


def load_certificate(folder: Path) -> x509.Certificate:
    """Reads an authority's certificate, without its key.

    Raises:
        BadFileError: It is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (OSError, *UNREADABLE) as error:
        raise _unreadable(folder, error) from error


def issue_endpoint(
    authority: Authority, hosts: Sequence[str], now: datetime, life: timedelta = ENDPOINT_LIFE
) -> tuple[bytes, bytes]:
    """Makes a new key and certificate for the coordinator's endpoint.

    Args:
        authority: The signing authority.
        hosts: DNS names and IP addresses of the endpoint; all of them become SANs.
        now: The present time, with its zone.
        life: How long it is valid; at most as long as the authority.

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
    return sealed_key.plain(key), certificate.public_bytes(Encoding.PEM)


def is_due(
    pair: tuple[bytes, bytes], issuer: x509.Certificate, hosts: Sequence[str], now: datetime
) -> bool:
    """Whether an endpoint's key and certificate must be renewed.

    They must if they are past half their life or not usable. Only the authority's certificate is
    needed, not its key.
    """
    if not serves(pair, issuer, hosts, now):
        return True
    certificate = x509.load_pem_x509_certificate(pair[1])
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now > first + (last - first) / 2


def serves(
    pair: tuple[bytes, bytes], issuer: x509.Certificate, hosts: Sequence[str], now: datetime
) -> bool:
    """Whether sites accept an endpoint's key and certificate now.

    They do not if these have expired, have other hosts or another authority, are damaged, or do not
    belong together, as after a crash between two writes.
    """
    try:
        key = load_pem_private_key(pair[0], password=None)
        certificate = read_certificates(pair[1])[0]
        certificate.verify_directly_issued_by(issuer)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return False
    return (
        isinstance(key, ec.EllipticCurvePrivateKey)
        and not _differ(key, certificate)
        and now < certificate.not_valid_after_utc
        and set(names) == {_san(host) for host in hosts}
    )


def days_left(pem: bytes, now: datetime) -> int:
    """Returns the whole days until a certificate expires."""
    return (over_at(pem) - now).days


def over_at(pem: bytes) -> datetime:
    """Returns when a certificate expires."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Reads the certificates (at least one) in a text from another party.

    Raises:
        ValueError: One cannot be read, or has a serial number below 1, which `cryptography`
            deprecates.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            return x509.load_pem_x509_certificates(pem)
    except (*UNREADABLE, CryptographyDeprecationWarning) as error:
        raise ValueError(f"not a certificate: {error}") from error


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, in groups that two people can compare by telephone.

    Raises:
        NetworkError: The text is not one certificate.
    """
    try:
        certificate = read_certificates(pem)[0]
        # Exactly one certificate, because the site will trust the whole text.
        if pem.strip() != certificate.public_bytes(Encoding.PEM).strip():
            raise ValueError("more than one certificate")
        digest = certificate.fingerprint(hashes.SHA256()).hex()
    except UNREADABLE as error:
        raise NetworkError(
            "the authority's certificate cannot be read; ask for the file again"
        ) from error
    return grouped(digest)


def grouped(digest: str) -> str:
    """Formats a SHA-256 in hex as eight groups."""
    return "-".join(digest[at : at + 8] for at in range(0, len(digest), 8))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints are equal, ignoring groups and case."""
    return _digits(one) == _digits(other) != ""


def compare_fingerprints(given: str, own: str, changed: str) -> None:
    """Refuses a fingerprint that is not the complete expected one.

    Args:
        given: The fingerprint that a person typed.
        own: The expected fingerprint.
        changed: The message if it differs.

    Raises:
        UsageError: It is only a part of the right one. That shows no change, but an attacker can
            make a key that fits a part, so the whole is needed.
        NetworkError: It differs.
    """
    if same_fingerprint(given, own):
        return
    first, *rest = [_digits(part) for part in re.split(r"…|\.\.\.", given)]
    whole, last = _digits(own), rest[-1] if rest else ""
    if first + last and whole.startswith(first) and whole.endswith(last):
        raise UsageError(
            f"--fingerprint: {given} is shortened: it has {len(first + last)} of {len(whole)} "
            "digits. They match, but a part can be forged; give the whole fingerprint as the other "
            "side reads it to you"
        )
    raise NetworkError(changed)


def _digits(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter in "0123456789abcdef")


def is_signed_by(pem: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the key of one of the certificates in a text signed some bytes."""
    try:
        keys = [found.public_key() for found in read_certificates(pem)]
    except UNREADABLE:
        return False
    return any(_signed(key, body, signature) for key in keys)


def _signed(key: object, body: bytes, signature: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except UNREADABLE:
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


def _unreadable(folder: Path, error: Exception) -> BadFileError:
    return BadFileError(
        f"{folder}: the authority cannot be read ({error}); restore ca.key and ca.crt from "
        "their backup, as every site pins them"
    )


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
