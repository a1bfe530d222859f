"""The node's key: made at the site, for its owner alone, one key in one writing."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    public_key_to_bytes,
    verify_signature,
)

from cloister.deployment.enrolment.node_key import (
    create_node_key,
    is_node_signed,
    load_node_key,
    public_pem,
    sign_as_node,
)
from cloister.errors import BadFileError
from tests.support.papers import keys

BODY = b"body"


def test_a_key_is_read_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "site" / "node.key"
    made = create_node_key(path)
    assert public_pem(load_node_key(path)) == public_pem(made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def test_a_new_key_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    assert public_pem(create_node_key(path)) != public_pem(create_node_key(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_a_damaged_key_is_named_with_its_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "node.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match="join again"):
        load_node_key(path)


def test_a_key_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
        )
    )
    with pytest.raises(BadFileError, match="not an elliptic curve key"):
        load_node_key(path)


def test_flower_writes_and_checks_keys_as_we_do() -> None:
    key = keys("ward").node
    assert public_key_to_bytes(key.public_key()) == public_pem(key).encode()
    public = bytes_to_public_key(public_pem(key).encode())
    assert verify_signature(public, BODY, sign_as_node(key, BODY))


def test_a_signature_holds_for_its_body_and_its_key_alone() -> None:
    key, other = keys("ward").node, keys("clinic").node
    signature = sign_as_node(key, BODY)
    assert is_node_signed(BODY, signature, public_pem(key))
    assert not is_node_signed(b"other", signature, public_pem(key))
    assert not is_node_signed(BODY, signature, public_pem(other))
    for wrong in (b"", b"\x00" * 70, signature[:-1], signature + b"\x00"):
        assert not is_node_signed(BODY, wrong, public_pem(key))


def test_one_key_has_one_writing() -> None:
    """Members are told apart by their keys' texts: the same key in another text is none."""
    key = keys("ward").node
    pem, signature = public_pem(key), sign_as_node(key, BODY)
    for text in (pem + "\n", "note\n" + pem, pem.replace("\n", "\r\n"), pem.strip(), pem + pem):
        assert not is_node_signed(BODY, signature, text)


def test_only_the_agreed_kind_of_key_is_taken() -> None:
    for private in (
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
        Ed25519PrivateKey.generate(),
    ):
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert not is_node_signed(BODY, b"\x00" * 70, pem.decode())
    for text in ("", "garbage", "\ud800", "-----BEGIN PUBLIC KEY-----\nAAAA\n"):
        assert not is_node_signed(BODY, b"\x00" * 70, text)
