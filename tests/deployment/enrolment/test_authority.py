"""The authority is made once and stays; what it issues is right, and renewed in time."""

import contextlib
import ipaddress
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloister.deployment.enrolment.authority import (
    ENDPOINT_LIFE,
    compare_fingerprints,
    create_authority,
    days_left,
    fingerprint,
    is_due,
    is_signed_by,
    issue_endpoint,
    load_authority,
    same_fingerprint,
)
from cloister.errors import BadFileError, NetworkError, UsageError
from tests.support.papers import DAY, NOW, authority

HOSTS = ("fed.example.org", "10.0.0.7", "fd00::7")


def test_an_authority_is_read_as_it_was_made(tmp_path: Path) -> None:
    made = create_authority(tmp_path, "hub", NOW)
    read = load_authority(tmp_path)
    assert read.pem == made.pem
    assert is_signed_by(made.pem, b"body", read.sign(b"body"))
    assert not is_signed_by(made.pem, b"other", read.sign(b"body"))
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


def test_an_authority_is_never_made_over_another(tmp_path: Path) -> None:
    made = create_authority(tmp_path, "hub", NOW)
    with pytest.raises(BadFileError, match="is not replaced"):
        create_authority(tmp_path, "hub", NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(BadFileError, match=r"restore ca.key"):
        create_authority(tmp_path, "hub", NOW)
    assert (tmp_path / "ca.crt").read_bytes() == made.pem


def test_it_may_sign_certificates_and_nothing_below_it_may() -> None:
    key, pem = issue_endpoint(authority(), HOSTS, NOW)
    for certificate, signs in (
        (authority().certificate, True),
        (x509.load_pem_x509_certificate(pem), False),
    ):
        extensions = certificate.extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert basic.critical
        assert usage.critical
        assert basic.value.ca is signs
        assert usage.value.key_cert_sign is signs
    assert load_pem_private_key(key, None).public_key() == certificate.public_key()


def test_names_and_addresses_become_sans_of_their_own_kind() -> None:
    _, pem = issue_endpoint(authority(), HOSTS, NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.7"),
        ipaddress.ip_address("fd00::7"),
    ]
    certificate.verify_directly_issued_by(authority().certificate)


@pytest.mark.parametrize("name", ["x" * 200, "病院" * 30])
def test_long_names_are_shortened_where_a_certificate_has_no_room(
    tmp_path: Path, name: str
) -> None:
    create_authority(tmp_path, name, NOW)
    host = ".".join(["label" * 10] * 4)
    _, pem = issue_endpoint(authority(), (host,), NOW)
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == [host]


def test_a_certificate_is_due_from_half_its_life_on() -> None:
    pair = issue_endpoint(authority(), HOSTS, NOW)
    half = NOW + ENDPOINT_LIFE / 2
    assert not is_due(pair, authority().certificate, HOSTS, NOW)
    assert not is_due(pair, authority().certificate, HOSTS, half - DAY)
    assert is_due(pair, authority().certificate, HOSTS, half + DAY)
    assert is_due(pair, authority().certificate, HOSTS, NOW + 2 * ENDPOINT_LIFE)
    assert days_left(pair[1], NOW) == 90


def test_a_certificate_that_does_not_fit_is_due() -> None:
    (key, pem), (other_key, _) = (issue_endpoint(authority(), HOSTS, NOW) for _ in range(2))
    for pair in ((other_key, pem), (b"", pem), (key, b""), (b"x", b"y"), (key, pem[:100])):
        assert is_due(pair, authority().certificate, HOSTS, NOW)
    assert is_due((key, pem), authority("another").certificate, HOSTS, NOW)
    assert is_due((key, pem), authority().certificate, HOSTS[:2], NOW)
    assert is_due((key, pem), authority().certificate, (*HOSTS, "new.example.org"), NOW)


def test_a_certificate_ends_no_later_than_its_authority() -> None:
    late = authority().certificate.not_valid_after_utc - timedelta(days=3)
    _, pem = issue_endpoint(authority(), HOSTS, late)
    ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    assert ends == authority().certificate.not_valid_after_utc


def test_key_and_certificate_of_two_authorities_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        create_authority(tmp_path / name, name, NOW)
    (tmp_path / "two" / "ca.crt").replace(tmp_path / "one" / "ca.crt")
    with pytest.raises(BadFileError, match="not the key of"):
        load_authority(tmp_path / "one")


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_damaged_authority_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    create_authority(tmp_path, "hub", NOW)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=r"backup|restore"):
        load_authority(tmp_path)


def test_an_authority_with_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path, "hub", NOW)
    other = ec.generate_private_key(ec.SECP521R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.key").write_bytes(pem)
    with pytest.raises(BadFileError):
        load_authority(tmp_path)


def test_a_fingerprint_is_compared_however_people_write_it() -> None:
    printed = fingerprint(authority().pem)
    assert len(printed.split("-")) == 8
    for written in (printed, printed.upper(), printed.replace("-", " "), printed.replace("-", "")):
        assert same_fingerprint(written, printed)
    for wrong in ("", "-", printed[:-1], printed[:-1] + "xyz", fingerprint(authority("b").pem)):
        assert not same_fingerprint(wrong, printed)
    assert not same_fingerprint("", "")


def test_a_shortened_fingerprint_is_called_shortened_and_another_one_a_change() -> None:
    printed = fingerprint(authority().pem)
    compare_fingerprints(printed.upper(), printed, "changed on its way")
    for part in (printed[:8], f"{printed[:8]}-…", f"{printed[:8]}…{printed[-8:]}", printed[:-1]):
        with pytest.raises(UsageError, match="is shortened") as refused:
            compare_fingerprints(part, printed, "changed on its way")
        assert "changed on its way" not in str(refused.value)
    other = fingerprint(authority("b").pem)
    for wrong in (other, other[:8], "", "…", f"{printed[:8]}…{other[-8:]}", printed + "0"):
        with pytest.raises(NetworkError, match="changed on its way"):
            compare_fingerprints(wrong, printed, "changed on its way")


def test_a_fingerprint_is_of_one_certificate_and_nothing_beside_it() -> None:
    """Who reads a fingerprint aloud speaks for the whole text that a site will trust."""
    one, other = authority().pem, authority("another").pem
    for text in (one + other, other + one, b"note\n" + one, b"", b"garbage"):
        with pytest.raises(NetworkError, match="cannot be read"):
            fingerprint(text)


def test_a_certificate_with_any_byte_changed_is_refused_and_nothing_else_happens() -> None:
    """Some changes are no ValueError to `cryptography`: an unknown version, an extension twice."""
    good = authority().pem
    body, signature = b"body", authority().sign(b"body")
    key, _ = issue_endpoint(authority(), HOSTS, NOW)
    for at in range(len(good)):
        for bit in (1, 2, 32):
            pem = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
            is_signed_by(pem, body, signature)
            is_due((key, pem), authority().certificate, HOSTS, NOW)
            with contextlib.suppress(NetworkError):
                assert fingerprint(pem) != fingerprint(good) or pem.strip() == good.strip()
