"""The coordinator's certificate authority, and the certificates that it issues for its endpoint.

Sites pin the authority by its fingerprint; another one follows it only by a paper that it signed
(succession.py). What it issues is short-lived and renewed by itself. Its key may be encrypted, or
kept elsewhere: it is opened only to sign.
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

# An authority outlives the studies of a consortium; sites would have to pin another one.
AUTHORITY_LIFE = timedelta(days=3650)
# What an endpoint's certificate lives for: 90 days is what public authorities settled on; renewed
# from half of it on, it can be unreachable for six weeks and still be renewed in time.
ENDPOINT_LIFE = timedelta(days=90)
# Bytes of a common name (X.520: 64), with room for a word; clients compare SANs, not this.
LONGEST_CN = 54
# What `cryptography` raises for a certificate or key that is damaged, of another kind, or no
# certificate at all; not all of these are ValueErrors.
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


def create_authority(
    folder: Path, name: str, now: datetime, passphrase: bytes | None = None, stem: str = "ca"
) -> Authority:
    """Makes an authority and writes `ca.key` (0600) and `ca.crt`.

    Args:
        folder: Where.
        name: Of the coordinator.
        now: The present time, with its zone.
        passphrase: What its key is encrypted under; None: it lies in the clear.
        stem: The files' name without its end.

    Raises:
        BadFileError: There is one already, or it cannot be written.
        UsageError: The passphrase is too short or too long.
    """
    place, public = folder / f"{stem}.key", folder / f"{stem}.crt"
    if place.exists():
        raise BadFileError(f"{place}: an authority is here already, and stays")
    if public.exists():
        raise BadFileError(
            f"{public}: an authority without its key; restore {place.name} from its backup, "
            f"or remove {public.name} if no site pins it"
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
        passphrase: Asked for the passphrase where the key is encrypted.

    Raises:
        BadFileError: It is missing, damaged, or key and certificate do not belong together; or the
            passphrase is another one.
        UsageError: The key is encrypted, and nothing tells the passphrase.
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
    """Reads an authority's certificate; its key may be encrypted, or elsewhere.

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
    return sealed_key.plain(key), certificate.public_bytes(Encoding.PEM)


def is_due(
    pair: tuple[bytes, bytes], issuer: x509.Certificate, hosts: Sequence[str], now: datetime
) -> bool:
    """Whether an endpoint's key and certificate must be renewed.

    They are past half their life, or do not serve. Only the authority's certificate is needed to
    tell; its key may be encrypted, or elsewhere.
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

    They do not if these are over, of other hosts or another authority, damaged, or do not belong
    together, as after a crash between writing one and the other.
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
    """Reads the certificates, at least one, of a text that another party wrote.

    Raises:
        ValueError: One cannot be read, or is of a kind that `cryptography` only still takes (a
            serial number below 1).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            return x509.load_pem_x509_certificates(pem)
    except (*UNREADABLE, CryptographyDeprecationWarning) as error:
        raise ValueError(f"no certificate: {error}") from error


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, in groups that two people can compare over a telephone.

    Raises:
        NetworkError: It is no certificate.
    """
    try:
        certificate = read_certificates(pem)[0]
        # One certificate and nothing beside it: the site will trust the whole text.
        if pem.strip() != certificate.public_bytes(Encoding.PEM).strip():
            raise ValueError("more than one certificate")
        digest = certificate.fingerprint(hashes.SHA256()).hex()
    except UNREADABLE as error:
        raise NetworkError(
            "the authority's certificate cannot be read; ask for the file anew"
        ) from error
    return grouped(digest)


def grouped(digest: str) -> str:
    """Formats a SHA-256 in hex as eight groups."""
    return "-".join(digest[at : at + 8] for at in range(0, len(digest), 8))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two people read the same fingerprint, however they group or capitalise it."""
    return _digits(one) == _digits(other) != ""


def compare_fingerprints(given: str, own: str, changed: str) -> None:
    """Refuses a fingerprint that is not the whole one of what is at hand.

    Args:
        given: As a person typed it.
        own: Of what is at hand.
        changed: What to say where it is another's.

    Raises:
        UsageError: It is a part of the right one. That tells of no change, but a part is quickly
            imitated by whoever makes keys until one fits, so the whole is asked for.
        NetworkError: It is another's.
    """
    if same_fingerprint(given, own):
        return
    first, *rest = [_digits(part) for part in re.split(r"…|\.\.\.", given)]
    whole, last = _digits(own), rest[-1] if rest else ""
    if first + last and whole.startswith(first) and whole.endswith(last):
        raise UsageError(
            f"--fingerprint: {given} is shortened: it has {len(first + last)} of {len(whole)} "
            "digits. They fit, but a part can be imitated; give the whole fingerprint as the other "
            "side reads it"
        )
    raise NetworkError(changed)


def _digits(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter in "0123456789abcdef")


def is_signed_by(pem: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the key of a certificate, or of one of several in one text, signed some bytes."""
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
