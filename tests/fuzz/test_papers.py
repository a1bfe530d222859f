"""Fuzzes the papers of joining: bytes, and structures that their right signer signed."""

import json
import ssl
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.deployment.enrolment.authority import fingerprint, same_fingerprint
from cloister.deployment.enrolment.documents import (
    LARGEST,
    VERSIONS,
    Approval,
    kind_of,
    read_approval,
    read_invite,
    read_join_request,
    write_invite,
    write_request,
    write_welcome,
)
from cloister.deployment.enrolment.node_key import sign_as_node
from cloister.deployment.enrolment.succession import Succession, read_succession, write_succession
from cloister.ledger.signing import public_hex
from tests.support.fuzzing import as_json, fuzz, hostile_bytes, must_read, odd, reshaped
from tests.support.papers import DAY, NOW, authority, invite, keys, request

KINDS = ("invite", "request", "welcome", "succession")


@cache
def sound(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        path, own = Path(folder) / "paper", keys("ward")
        if kind == "invite":
            write_invite(path, invite(), authority())
        elif kind == "request":
            write_request(path, request(), own.node, own.ledger)
        elif kind == "succession":
            over = (NOW + 30 * DAY).isoformat()
            next_one = Succession(
                coordinator="hub", authority=authority("next").pem.decode(), former_until=over
            )
            write_succession(path, next_one, authority())
        else:
            over = (NOW + 30 * DAY).isoformat()
            told = Approval(
                coordinator="hub",
                site="ward",
                request="r",
                expires=over,
                coordinator_key=public_hex(own.ledger),
            )
            write_welcome(path, told, authority())
        return path.read_bytes()


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("papers") / "paper.json"


def with_version(number: int) -> str:
    """The authority's certificate as one of another version of X.509."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(authority().pem.decode()))
    at = der.index(b"\xa0\x03\x02\x01\x02")
    der[at + 4] = number
    return ssl.DER_cert_to_PEM_cert(bytes(der))


def read_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    size = len(content)
    must_read(lambda: kind_of(path), size)
    must_read(lambda: read_invite(path, NOW), size)
    must_read(lambda: read_invite(path, None), size)
    must_read(lambda: read_join_request(path), size)
    must_read(lambda: read_approval(path, authority().pem, NOW), size)
    must_read(lambda: read_succession(path, authority().pem), size)


@fuzz
@given(st.sampled_from(KINDS).flatmap(lambda kind: hostile_bytes(sound(kind))))
@example(b"[" * 60_000)
@example(b"[]," * 21_000)
@example(b'{"a":1' + b"0" * 6000 + b"}")
@example(b"x" * (LARGEST + 10))
def test_bytes(paper: Path, content: bytes) -> None:
    read_all(paper, content)


def signed(kind: str, body: dict[str, Any], outer: dict[str, Any]) -> bytes:
    """A paper of this body under right signatures, as far as it can be signed at all."""
    own = keys("ward")
    try:
        text = f"cloister {kind} {VERSIONS.get(kind, 1)}\n".encode() + canonical(body)
    except ValueError:
        text = b""
    signatures = {"authority": authority().sign(text).hex()}
    if kind == "request":
        signatures = {
            "node": sign_as_node(own.node, text).hex(),
            "ledger": own.ledger.sign(text).hex(),
        }
    made = {"cloister": kind, "version": VERSIONS.get(kind, 1), "body": body}
    if kind == "succession":
        return as_json({**made, "signature": signatures["authority"], **outer})
    whole = {**made, "signatures": signatures, **outer}
    return as_json(whole)


def bodies(kind: str) -> st.SearchStrategy[Any]:
    return reshaped(json.loads(sound(kind))["body"])


@fuzz
@given(
    st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), bodies(kind))),
    st.dictionaries(
        st.sampled_from(["version", "signatures", "cloister", "more"]), odd, max_size=1
    ),
)
def test_structures_that_are_signed(
    paper: Path, given_body: tuple[str, Any], outer: dict[str, Any]
) -> None:
    kind, body = given_body
    read_all(paper, signed(kind, body, outer))


@pytest.mark.parametrize("field", ["authority", "address", "expires", "site", "token"])
@pytest.mark.parametrize(
    "value",
    [
        "\x1b[2J",
        "\ud800",
        "x" * 60_000,
        "\n",
        "\u202e",
        "2027-13-45",
        "0001-01-01T00:00:00+14:00",
        "fed:99999",
        "[" * 100,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_each_field_of_an_invite(paper: Path, field: str, value: str) -> None:
    body = {**json.loads(sound("invite"))["body"], field: value}
    read_all(paper, signed("invite", body, {}))


def test_an_authority_of_another_version_of_x509(paper: Path) -> None:
    """`cryptography` has an error of its own for it, which is no ValueError."""
    for number in (1, 5, 6, 127):
        body = {**json.loads(sound("invite"))["body"], "authority": with_version(number)}
        read_all(paper, signed("invite", body, {}))


@fuzz
@given(st.binary(max_size=200) | st.just(authority().pem), st.text(max_size=120))
def test_fingerprints(pem: bytes, told: str) -> None:
    must_read(lambda: fingerprint(pem))
    must_read(lambda: same_fingerprint(told, authority().pem.decode()[:80]))
