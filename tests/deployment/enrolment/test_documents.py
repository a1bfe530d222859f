"""Invite, request and welcome: what was said is what was signed, or it is refused by name."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.deployment.enrolment.documents import (
    LARGEST,
    VERSIONS,
    Approval,
    Invite,
    JoinRequest,
    content_of,
    kind_of,
    read_approval,
    read_invite,
    read_join_request,
    write_invite,
    write_request,
    write_welcome,
)
from cloister.deployment.enrolment.node_key import public_pem, sign_as_node
from cloister.errors import BadFileError, CloisterError, NetworkError
from cloister.ledger.signing import public_hex
from tests.support.examples import tries
from tests.support.papers import DAY, NOW, authority, invite, keys, request

KINDS = ("invite", "request", "welcome")
Paper = Invite | JoinRequest | Approval


def welcome() -> Approval:
    return Approval(
        coordinator="hub",
        site="ward",
        request=request().fingerprint,
        expires=(NOW + 365 * DAY).isoformat(),
        coordinator_key=public_hex(keys("hub").ledger),
    )


def write(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.json"
    if kind == "invite":
        write_invite(path, invite(), authority())
    elif kind == "request":
        write_request(path, request(), keys("ward").node, keys("ward").ledger)
    else:
        write_welcome(path, welcome(), authority())
    return path


def read(path: Path, kind: str) -> Paper:
    if kind == "invite":
        return read_invite(path, NOW)
    return (
        read_join_request(path) if kind == "request" else read_approval(path, authority().pem, NOW)
    )


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("papers")
    return {kind: write(folder, kind).read_bytes() for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "paper"), [("invite", invite()), ("request", request()), ("welcome", welcome())]
)
def test_a_paper_is_read_as_it_was_written(tmp_path: Path, kind: str, paper: Paper) -> None:
    path = write(tmp_path, kind)
    assert read(path, kind) == paper
    assert kind_of(path) == kind
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=tries(150), deadline=None)
@given(data=st.data())
def test_a_changed_byte_changes_nothing_that_is_believed(
    tmp_path_factory: pytest.TempPathFactory,
    papers: dict[str, bytes],
    kind: str,
    data: st.DataObject,
) -> None:
    """White space and the letter case of a signature's hex say nothing; all else is refused."""
    path = tmp_path_factory.getbasetemp() / f"changed-{kind}.json"
    content = bytearray(papers[kind])
    path.write_bytes(content)
    told = read(path, kind)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    believed: Paper | CloisterError
    try:
        believed = read(path, kind)
    except (BadFileError, NetworkError) as error:
        believed = error
    assert believed == told or str(believed).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_signed(tmp_path: Path, kind: str) -> None:
    for name, value in json.loads(write(tmp_path, kind).read_text())["body"].items():
        other = value + 1 if isinstance(value, int) else value + "0"
        path = edited(write(tmp_path, kind), lambda d, n=name, v=other: d["body"].update({n: v}))
        with pytest.raises((NetworkError, BadFileError)) as told:
            read(path, kind)
        assert str(told.value).startswith(str(path)), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_signature_counts(tmp_path: Path, kind: str) -> None:
    for name in json.loads(write(tmp_path, kind).read_text())["signatures"]:
        for other in ("", "00", "zz", 5, None, ["00"], "00" * 72):
            path = edited(
                write(tmp_path, kind), lambda d, n=name, v=other: d["signatures"].update({n: v})
            )
            with pytest.raises((NetworkError, BadFileError)):
                read(path, kind)
        path = edited(write(tmp_path, kind), lambda d, n=name: d["signatures"].pop(n))
        with pytest.raises(BadFileError, match="signatures are damaged"):
            read(path, kind)
    path = edited(write(tmp_path, kind), lambda d: d["signatures"].update({"more": "00"}))
    with pytest.raises(BadFileError, match="signatures are damaged"):
        read(path, kind)


def test_a_request_is_signed_by_both_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    for node, ledger in (("other", "ward"), ("ward", "other")):
        write_request(path, request(), keys(node).node, keys(ledger).ledger)
        with pytest.raises(NetworkError, match="not signed by the keys in it"):
            read_join_request(path)


def test_a_paper_of_another_authority_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    write_invite(path, invite(), authority("another"))
    with pytest.raises(NetworkError, match="changed after it was signed"):
        read_invite(path, NOW)
    write_welcome(path, welcome(), authority("another"))
    with pytest.raises(NetworkError, match="not signed by the coordinator"):
        read_approval(path, authority().pem, NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_one_paper_is_not_taken_for_another(tmp_path: Path, kind: str) -> None:
    for other in [one for one in KINDS if one != kind]:
        with pytest.raises(BadFileError, match=f"is the {kind}; the {other} is needed"):
            read(write(tmp_path, kind), other)
        with pytest.raises(BadFileError, match=f"the {other} is damaged"):
            read(
                edited(write(tmp_path, kind), lambda d, o=other: d.update(cloister=o, version=1)),
                other,
            )


def test_no_signature_on_a_paper_holds_for_the_bare_text(tmp_path: Path) -> None:
    """A site's ledger key signs entries as canonical JSON: no request is one of them."""
    path = write(tmp_path, "request")
    body = canonical(asdict(request()))

    def resign(document: dict[str, Any]) -> None:
        document["signatures"] = {
            "node": sign_as_node(keys("ward").node, body).hex(),
            "ledger": keys("ward").ledger.sign(body).hex(),
        }

    with pytest.raises(NetworkError):
        read_join_request(edited(path, resign))


@pytest.mark.parametrize("version", [0, VERSIONS["invite"] + 1, "1", None, True, 1.0, [1]])
def test_another_version_is_named(tmp_path: Path, version: object) -> None:
    path = edited(write(tmp_path, "invite"), lambda d: d.update(version=version))
    with pytest.raises(BadFileError, match="same version of cloister"):
        read_invite(path, NOW)


ODD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"PK\x03\x04",
    "no UTF-8": b'{"cloister": "\xff"}',
    "a list": b"[]",
    "a number": b"1e400",
    "a long number": b"1" * 5000,
    "no text": b"null",
    "deep": b"[" * 50_000,
    "deep objects": b'{"a":' * 10_000,
    "large": b" " * (LARGEST + 1),
    "another's": b'{"cloister": "recipe", "version": 1, "body": {}, "signatures": {}}',
    "a kind that is no text": b'{"cloister": [], "version": 1, "body": {}, "signatures": {}}',
    "more": b'{"cloister": "invite", "version": 1, "body": {}, "signatures": {}, "x": 1}',
    "twice": b'{"cloister": "invite", "version": 1, "body": {}, "body": {}, "signatures": {}}',
    "no body": b'{"cloister": "invite", "version": 1, "body": [], "signatures": {}}',
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD.keys())
def test_what_is_no_paper_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    for kind in KINDS:
        with pytest.raises(BadFileError) as told:
            read(path, kind)
        assert str(told.value).startswith(f"{path}: ")
        assert str(told.value).isprintable()
        assert len(str(told.value)) < len(str(path)) + 200


@pytest.mark.parametrize("name", ["version", "site", "authority"])
def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    """Two readers could each take another of them; and the paper is a true one otherwise."""
    path = write(tmp_path, "invite")
    line = next(line for line in path.read_text().splitlines() if f'"{name}": ' in line)
    path.write_text(path.read_text().replace(line, f"{line.rstrip(',')},\n{line}", 1))
    with pytest.raises(BadFileError, match="duplicate name in an object"):
        read_invite(path, NOW)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadFileError, match="cannot be read"):
            kind_of(path)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a hidden name": ("invite", {"site": ".ward"}),
    "a path": ("invite", {"site": "../ward"}),
    "a name that is no text": ("invite", {"site": 5}),
    "a name that turns the line": ("invite", {"site": "ward\u202e"}),
    "a name with an invisible letter": ("request", {"site": "wa\u200brd"}),
    "half a letter": ("invite", {"site": "\ud800"}),
    "half a letter elsewhere": ("invite", {"token": "\udfff"}),
    "half a letter in a certificate": ("invite", {"authority": "\ud800"}),
    "a coordinator with an escape": ("invite", {"coordinator": "\x1b[2J"}),
    "nobody's records": ("request", {"public_records": 0}),
    "records below none": ("request", {"public_records": -3}),
    "true records": ("request", {"public_records": True}),
    "records in parts": ("request", {"public_records": 1.5}),
    "absurdly many": ("request", {"public_records": 10**300}),
    "a key in capitals": ("request", {"ledger_key": public_hex(keys("ward").ledger).upper()}),
    "a key with spaces": ("request", {"ledger_key": " " + public_hex(keys("ward").ledger)}),
    "a short key": ("request", {"ledger_key": "00"}),
    "one field more": ("request", {"noise_multiplier": 0}),
}


@pytest.mark.parametrize(("kind", "change"), FORMS.values(), ids=FORMS.keys())
def test_fields_that_cannot_be_meant_are_refused(
    tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    path = edited(write(tmp_path, kind), lambda d: d["body"].update(change))
    with pytest.raises(BadFileError, match="ask for it again"):
        read(path, kind)


@settings(max_examples=tries(100), deadline=None)
@given(
    document=st.fixed_dictionaries(
        {
            "cloister": st.sampled_from(KINDS),
            "version": st.sampled_from(sorted(VERSIONS.values())),
            "body": st.recursive(
                st.none() | st.integers() | st.text(max_size=5),
                lambda inner: st.dictionaries(
                    st.sampled_from([*asdict(request()), *asdict(invite())]), inner, max_size=8
                ),
                max_leaves=12,
            ),
            "signatures": st.dictionaries(
                st.sampled_from(["authority", "node", "ledger"]), st.text(max_size=5)
            ),
        }
    )
)
def test_any_document_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    for kind in KINDS:
        with pytest.raises((BadFileError, NetworkError)) as told:
            read(path, kind)
        assert "\n" not in str(told.value)


def earlier(path: Path) -> Path:
    """A welcome as it was written before coordinators had a key: byte for byte of that form."""
    said = {name: value for name, value in asdict(welcome()).items() if name != "coordinator_key"}
    signature = authority().sign(b"cloister welcome 1\n" + canonical(said))
    document = {
        "cloister": "welcome",
        "version": 1,
        "body": said,
        "signatures": {"authority": signature.hex()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def test_a_welcome_from_before_there_was_a_key_is_read_and_brings_none(tmp_path: Path) -> None:
    path = earlier(tmp_path / "welcome.json")
    assert read_approval(path, authority().pem, NOW) == replace(welcome(), coordinator_key="")


@pytest.mark.parametrize("version", [1, 3, True, "2"])
def test_a_welcome_is_of_the_version_that_was_signed(tmp_path: Path, version: object) -> None:
    """Nobody takes the key out of one, or puts one in, by calling it another version."""
    path = edited(write(tmp_path, "welcome"), lambda d: d.update(version=version))
    with pytest.raises(BadFileError):
        read_approval(path, authority().pem, NOW)
    stripped = edited(path, lambda d: (d.update(version=1), d["body"].pop("coordinator_key")))
    with pytest.raises(NetworkError, match="not signed by the coordinator"):
        read_approval(stripped, authority().pem, NOW)
    added = edited(
        earlier(path), lambda d: (d.update(version=2), d["body"].update(coordinator_key="ab" * 32))
    )
    with pytest.raises(NetworkError, match="not signed by the coordinator"):
        read_approval(added, authority().pem, NOW)


@pytest.mark.parametrize("key", ["", "ab", "AB" * 32, "ab" * 33, "zz" * 32])
def test_a_welcome_with_no_key_that_could_be_is_damaged(tmp_path: Path, key: str) -> None:
    path = tmp_path / "welcome.json"
    write_welcome(path, replace(welcome(), coordinator_key=key), authority())
    with pytest.raises(BadFileError, match="the welcome is damaged"):
        read_approval(path, authority().pem, NOW)


def test_an_invite_is_void_after_its_time(tmp_path: Path) -> None:
    path = write(tmp_path, "invite")
    assert read_invite(path, NOW + 30 * DAY) == invite()
    with pytest.raises(NetworkError, match=r"was valid until .*; ask the coordinator for another"):
        read_invite(path, NOW + 31 * DAY)
    assert read_invite(path, None) == invite()  # one that was answered


def test_a_welcome_is_void_after_its_time(tmp_path: Path) -> None:
    path = write(tmp_path, "welcome")
    with pytest.raises(NetworkError, match=r"was valid until .*approve the request again"):
        read_approval(path, authority().pem, NOW + 366 * DAY)


@pytest.mark.parametrize("when", ["", "soon", "2027-03-01", "2027-03-01T12:00:00", "9" * 40])
def test_a_time_without_a_zone_is_none(tmp_path: Path, when: str) -> None:
    path = tmp_path / "invite.json"
    write_invite(path, invite(expires=when), authority())
    with pytest.raises(BadFileError, match="not a time with a zone"):
        read_invite(path, NOW)


@pytest.mark.parametrize("address", ["", "fed.example.org", "fed:0", "fed:70000", "a b:1", "::1:9"])
def test_an_invite_to_no_address_is_refused(tmp_path: Path, address: str) -> None:
    path = tmp_path / "invite.json"
    write_invite(path, invite(address=address), authority())
    with pytest.raises(BadFileError, match="host:port is needed"):
        read_invite(path, NOW)


def test_an_authority_that_is_no_certificate_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "invite.json"
    for text in ("", "garbage", public_pem(keys("ward").node)):
        write_invite(path, invite(authority=text), authority())
        with pytest.raises(NetworkError):
            read_invite(path, NOW)


def test_what_was_read_is_what_is_checked(tmp_path: Path) -> None:
    """The content that a site keeps is the content that it checked, not the file a moment later."""
    path = write(tmp_path, "invite")
    content = content_of(path)
    path.write_text("changed meanwhile")
    assert read_invite(path, NOW, content) == invite()


def test_a_request_s_fingerprint_is_of_all_that_it_says() -> None:
    told = request()
    others = [
        replace(told, site="clinic"),
        replace(told, token="other"),
        replace(told, node_key=public_pem(keys("clinic").node)),
        replace(told, ledger_key=public_hex(keys("clinic").ledger)),
        replace(told, public_records=1201),
    ]
    assert len({one.fingerprint for one in (told, *others)}) == 6
    assert told.fingerprint == request().fingerprint


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="name another place"):
        write_invite(tmp_path / "none" / "invite.json", invite(), authority())
