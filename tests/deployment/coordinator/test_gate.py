"""From outside, the gate serves only members, only Fleet calls, only over TLS, within bounds."""

import base64
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from cloister.deployment.coordinator import gate_calls, gate_connection, gate_forward
from cloister.deployment.coordinator.gate import Seen, make_server
from cloister.deployment.coordinator.gate_authenticator import MemberAuthenticator
from cloister.deployment.coordinator.gate_calls import CALLS
from cloister.deployment.coordinator.members import connecting, read_members
from cloister.deployment.enrolment.authority import Authority, create_authority, issue_endpoint
from cloister.deployment.enrolment.documents import write_invite
from cloister.deployment.enrolment.node_key import create_node_key, public_pem
from cloister.deployment.site.connectivity import reach
from cloister.deployment.site.joining import SiteMembership
from tests.support import gate as gates
from tests.support.gate import (
    BODY,
    CALL,
    Gate,
    head,
    join,
    make_folder,
    open_gate,
    revoke,
    sent,
    signed,
    status_of,
)
from tests.support.https import FakeSuperLink, https, served
from tests.support.papers import DAY, invite, keys
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate")) as gate:
        join(gate.folder, "gone")
        revoke(gate.folder, "gone")
        yield gate


@pytest.fixture
def gate(shared: Gate) -> Gate:
    shared.link.asked.clear()
    return shared


def test_a_member_s_request_arrives_as_it_was_sent_and_so_does_the_answer(gate: Gate) -> None:
    headers = signed("ward") | {"content-type": "application/protobuf", "cookie": "a", "x-y": "z"}
    answer = httpx.post(
        f"https://localhost:{gate.port}/v1/fleet/{CALL}?secret=1",
        content=BODY,
        headers=headers,
        verify=gate.context,
        trust_env=False,
        timeout=300,
    )
    assert (answer.status_code, answer.content) == (200, b"answer to " + BODY[:10])
    assert answer.headers["flwr-told"] == "yes"
    assert answer.headers["cloister-member"] == "ward"
    assert "server" not in answer.headers
    ((method, path, told, body),) = gate.link.asked
    assert (method, path, body) == ("POST", f"/v1/fleet/{CALL}", BODY)
    assert {name: told[name] for name in headers if name not in ("cookie", "x-y")} == {
        name: [value] for name, value in headers.items() if name not in ("cookie", "x-y")
    }
    assert not {"cookie", "x-y"} & set(told)


def test_every_call_of_a_node_passes_and_no_other(gate: Gate) -> None:
    gates.ask(gate)
    said = [
        gates.activation(),
        gates.poll(),
        gates.reply(),
        gates.part(),
        gates.fetch(),
        gates.confirm(),
        gates.run_of(),
        gates.bundle_of(),
        gates.leave(),
    ]
    assert {gates.call_of(one) for one in said} | {CALL} == set(CALLS)
    assert [gate.say(one) for one in said] == [200] * len(said)
    gate.link.asked.clear()
    for call in (
        "register-node",
        "unregister-node",
        "PULL-MESSAGES",
        "x",
        "..",
        CALL + "%00",
        CALL + "%0a",
        "%2e%2e",
        CALL + "%20",
    ):
        assert gate.post(signed("ward"), call) in (400, 404), call
    assert gate.link.asked == []


def key_of(text: bytes) -> dict[str, str]:
    return signed("ward") | {"flwr-public-key": base64.b64encode(text).decode()}


PEM = public_pem(keys("ward").node).encode()
STRANGERS: dict[str, dict[str, str]] = {
    "no key": {},
    "a stranger's key": signed("stranger"),
    "a revoked site's key": signed("gone"),
    "a member's key, signed by another": signed("ward", by="stranger"),
    "a member's key, unsigned": {"flwr-public-key": signed("ward")["flwr-public-key"]},
    "another time than was signed": signed("ward") | {"flwr-timestamp": "2027-01-01T00:00:00"},
    "no base64": signed("ward") | {"flwr-public-key": "!!!"},
    "a signature that is none": signed("ward") | {"flwr-signature": "AAAA"},
    "a signature that is no base64": signed("ward") | {"flwr-signature": "_"},
    "the key in another writing": key_of(PEM + b"\n"),
    "no UTF-8": key_of(b"\xff\xfe"),
    "nothing": key_of(b""),
    "underscores": {name.replace("-", "_"): value for name, value in signed("ward").items()},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS.keys())
def test_whoever_is_no_member_is_refused(gate: Gate, headers: dict[str, str]) -> None:
    assert gate.post(headers) == 401
    assert gate.link.asked == []


def test_a_stranger_s_body_is_never_read(gate: Gate) -> None:
    """Only the headers were sent, and the answer is there already."""
    for headers in (signed("stranger"), signed("ward", by="stranger")):
        text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", headers | {"content-length": "15000000"})
        assert status_of(gate.raw(text)) == 401


PATHS = [
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/%2e%2e%2fcontrol%2fstart-run",
    "/v1/fleet/..%2fcontrol",
    "/v1/fleet/%252e%252e/control",
    "/v1/fleet/..;/control/start-run",
    f"/v1/fleet/{CALL}/../../control/start-run",
    f"/v1/fleet/{CALL}%2f..%2f..%2fcontrol%2fx",
    f"/v1/fleet/{CALL}/",
    "/v1/fleet/",
    "/v1/fleet",
    "//v1/control/start-run",
    "/",
    "*",
    "/v1/./control/start-run",
    "/v1/fleet\\..\\control",
    "/V1/FLEET/" + CALL,
    "/v1//fleet/" + CALL,
    f"/v1/fleet/{CALL}%00/../../control",
    "https://localhost/v1/control/start-run",
    "http://127.0.0.1:18080/v1/control/start-run",
    "https://localhost/v1/fleet/../control/x",
    "/docs",
    "/openapi.json",
    "/health",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_past_the_fleet_s_calls(gate: Gate, path: str) -> None:
    text = head(f"POST {path} HTTP/1.1", signed("ward") | {"content-length": "0"})
    assert status_of(gate.raw(text)) in (400, 404)
    assert gate.link.asked == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI"])
def test_no_other_method_passes(gate: Gate, method: str) -> None:
    text = head(f"{method} /v1/fleet/{CALL} HTTP/1.1", signed("ward"))
    assert status_of(gate.raw(text)) in (400, 404, 405)
    assert gate.link.asked == []


@pytest.mark.parametrize("name", ["flwr-public-key", "flwr-signature", "flwr-timestamp", "accept"])
def test_a_header_that_stands_there_twice_is_refused(gate: Gate, name: str) -> None:
    """Gate and SuperLink might each look at another: a revoked key behind a member's."""
    member, other = signed("ward") | {"accept": "*/*"}, signed("gone") | {"accept": "*/*"}
    for first, second in ((member, other), (other, member), (member, member)):
        pairs = [*first.items(), (name, second[name]), ("content-length", "0")]
        text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", pairs)
        assert status_of(gate.raw(text)) == 400
    pairs = [*member.items(), *other.items(), ("content-length", "0")]
    assert status_of(gate.raw(head(f"POST /v1/fleet/{CALL} HTTP/1.1", pairs))) == 400
    assert gate.link.asked == []


INNER = head("POST /v1/control/start-run HTTP/1.1", {"content-length": "0"})
SMUGGLED: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "length and chunks": (
        [("content-length", "5"), ("transfer-encoding", "chunked")],
        b"0\r\n\r\n" + INNER,
    ),
    "two lengths": ([("content-length", "0"), ("content-length", str(len(INNER)))], INNER),
    "odd chunks": ([("transfer-encoding", "chunked, identity")], b"0\r\n\r\n" + INNER),
    "hidden chunks": ([("transfer-encoding", "\x0bchunked")], b"0\r\n\r\n" + INNER),
    "a bare request behind": ([("content-length", "0")], INNER),
    "a length below": ([("content-length", "-1")], INNER),
    "a length with a sign": ([("content-length", "+0")], INNER),
    "a long chunk": ([("transfer-encoding", "chunked")], b"FFFFFFFFFFFFFFFFF\r\n" + INNER),
    "a folded header": ([("x", "y\r\n content-length: 0"), ("content-length", "0")], INNER),
    "an upgrade": ([("upgrade", "h2c"), ("content-length", "0")], INNER),
    "a websocket": (
        [
            ("upgrade", "websocket"),
            ("sec-websocket-key", "AAAA"),
            ("sec-websocket-version", "13"),
            ("content-length", "0"),
        ],
        INNER,
    ),
}


@pytest.mark.parametrize(("pairs", "rest"), SMUGGLED.values(), ids=SMUGGLED.keys())
def test_no_request_hides_in_another(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, str]], rest: bytes
) -> None:
    monkeypatch.setattr(gate_forward, "PATIENCE", 0.5)  # for the rest of a body that never comes
    lines = head(f"POST /v1/fleet/{CALL} HTTP/1.1", [*signed("ward").items(), *pairs])
    gate.raw(lines.replace(b"connection: close\r\n", b"") + rest)
    assert {path for _, path, _, _ in gate.link.asked} <= {f"/v1/fleet/{CALL}"}
    assert all(len(told["flwr-public-key"]) == 1 for _, _, told, _ in gate.link.asked)
    monkeypatch.undo()
    assert gate.post(signed("ward")) == 200  # and it serves on


def padded(size: int) -> bytes:
    """A heartbeat of that many bytes: what another version adds is read over."""
    filler = size - len(BODY) - 3
    return BODY + bytes([0x7A, filler & 0x7F | 0x80, filler >> 7]) + b"x" * filler


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def test_a_body_is_bounded_however_it_comes(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_calls, "SMALL_BODY", 1000)
    whole_body = padded(1000)
    assert gate.post(signed("ward"), body=whole_body) == 200
    ((_, _, _, body),) = gate.link.asked
    assert len(body) == 1000
    gate.link.asked.clear()
    line = f"POST /v1/fleet/{CALL} HTTP/1.1"
    text = head(line, signed("ward") | {"content-length": "1001"}) + b"x" * 1001
    assert status_of(gate.raw(text)) == 413
    whole = head(line, signed("ward") | {"transfer-encoding": "chunked"})
    assert status_of(gate.raw(whole + chunked(whole_body[:999], whole_body[999:], b""))) == 411
    assert status_of(gate.raw(whole + chunked(b"x" * 999, b"y" * 2))) == 411  # and no end
    assert gate.link.asked == []


@pytest.mark.parametrize("bound", ["PATIENCE", "STALL"])
def test_a_slow_body_ends_in_time(gate: Gate, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(gate_forward, bound, 0.2)
    text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward") | {"content-length": "10"})
    began = time.monotonic()
    assert status_of(gate.raw(text + b"x")) == 408
    assert time.monotonic() - began < 20  # the bounds in use are 60 and 30 s
    assert gate.link.asked == []


def test_whoever_says_nothing_holds_no_place(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_connection, "HEAD", 0.2)
    for text in (b"", b"POST /v1/fl", head(f"POST /v1/fleet/{CALL} HTTP/1.1", {})[:-2]):
        assert gate.raw(text) == b""


def test_whoever_breaks_off_harms_nobody(gate: Gate) -> None:
    text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward") | {"content-length": "10"})
    with gate.connection() as secured:
        secured.sendall(text + b"x")
    assert gate.post(signed("ward")) == 200


def test_a_refused_connection_is_closed(gate: Gate) -> None:
    text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("stranger") | {"content-length": "0"})
    answer = gate.raw(text.replace(b"connection: close\r\n", b""))
    assert status_of(answer) == 401
    assert b"connection: close" in answer.lower()


def test_a_site_is_refused_from_the_next_request_on(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        join(gate.folder, "clinic")
        url = f"https://localhost:{gate.port}/v1/fleet/{CALL}"
        one = httpx.Client(verify=gate.context, trust_env=False, timeout=300)
        with one as client:  # one connection
            assert client.post(url, headers=signed("ward"), content=BODY).status_code == 200
            revoke(gate.folder, "ward")
            assert client.post(url, headers=signed("ward"), content=BODY).status_code == 401
            body = gates.heartbeat(gates.OTHER_NODE)
            assert client.post(url, headers=signed("clinic"), content=body).status_code == 200
        gate.folder.members.write_text("damaged")
        assert gate.post(signed("clinic"), body=body) == 401  # nobody, when in doubt
        gate.folder.members.unlink()
        assert gate.post(signed("clinic"), body=body) == 401
        join(gate.folder, "clinic")
        assert gate.post(signed("clinic"), body=body) == 200


def test_a_name_in_any_script_is_told(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        join(gate.folder, "病院 3")
        assert gate.post(signed("病院 3")) == 200


def test_a_superlink_that_is_away_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    join(folder, "ward")
    with served(make_server(folder)):
        assert Gate(folder, FakeSuperLink()).post(signed("ward")) == 503


def test_the_gate_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    join(folder, "ward")
    gate = Gate(folder, FakeSuperLink())
    process = subprocess.Popen(
        [sys.executable, "-m", "cloister.deployment.coordinator.gate", str(folder.path)],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                assert gate.post(signed("ward")) == 503
                break
            except httpx.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert gate.post(signed("stranger")) == 401
    finally:
        process.terminate()
        process.communicate(timeout=600)


def test_a_membership_is_over_at_its_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    join(folder, "ward")
    (member,) = connecting(read_members(folder.members), datetime.now(UTC)).values()
    ends, times = datetime.fromisoformat(member.expires), [datetime.now(UTC)]
    door = MemberAuthenticator(folder.members, lambda: times[-1])
    key = signed("ward")["flwr-public-key"]
    tick = timedelta(microseconds=1)
    for now, site in ((times[0], "ward"), (ends - tick, "ward"), (ends, None), (ends + DAY, None)):
        times.append(now)
        assert door.site_of(key) == site


def test_who_was_seen_is_told_and_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen.json")
    seen("ward", 5)
    assert '"ward"' in (tmp_path / "seen.json").read_text()
    Seen(tmp_path / "none" / "seen.json")("ward", 5)


# What a site meets at the coordinator's address, and the step at which it says so.


def authority_of(folder: Path, began: datetime) -> Authority:
    folder.mkdir()
    return create_authority(folder, "hub", began)


def serve_with(kind: str, folder: Path) -> tuple[Path | None, Path | None, Authority]:
    """Key and certificate of a server, and the authority that the site pinned."""
    now = datetime.now(UTC)
    pinned = authority_of(folder / "pinned", now - 300 * DAY)
    hosts, began, signer = ("localhost", "127.0.0.1"), now, pinned
    if kind == "expired":
        began = now - 100 * DAY
    elif kind == "not begun":
        began = now + 10 * DAY
    elif kind == "another's name":
        hosts = ("fed.example.org", "localhost.example.org")
    elif kind == "another authority":
        signer = authority_of(folder / "other", now)
    key, certificate = folder / "server.key", folder / "server.crt"
    if kind == "plain HTTP":
        return None, None, pinned
    if kind == "self-signed":
        authority_of(folder / "itself", now)
        return folder / "itself" / "ca.key", folder / "itself" / "ca.crt", pinned
    pair = issue_endpoint(signer, hosts, began)
    key.write_bytes(pair[0])
    certificate.write_bytes(pair[1])
    return key, certificate, pinned


def member_of(folder: Path, authority: Authority, port: int) -> SiteMembership:
    membership = SiteMembership(folder / "ward.federation")
    create_node_key(membership.node_key)
    membership.authority.write_bytes(authority.pem)
    paper = invite(authority=authority.pem.decode(), address=f"localhost:{port}")
    write_invite(membership.path / "invite.json", paper, authority)
    return membership


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine's."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


TLS = {
    "expired": "expired",
    "not begun": "not yet valid",
    "another's name": "mismatch",
    "another authority": "unable to get|signature",
    "self-signed": "self.signed",
    "plain HTTP": "",
}


@pytest.mark.parametrize("kind", ["as it should be", *TLS])
def test_a_site_talks_to_its_own_coordinator_alone(tmp_path: Path, direct: None, kind: str) -> None:
    link, port = FakeSuperLink(), free_port()
    key, certificate, pinned = serve_with(kind, tmp_path)
    context = ssl.create_default_context(cadata=pinned.pem.decode())
    url = f"https://localhost:{port}/v1/fleet/{CALL}"
    with served(https(link, port, key, certificate)):
        steps = list(reach(member_of(tmp_path, pinned, port)))
        if kind == "as it should be":
            assert httpx.post(url, verify=context, trust_env=False, timeout=300).status_code == 200
            assert all(step.fine for step in steps if step.name in ("name", "port", "TLS"))
            return
        with pytest.raises(httpx.ConnectError, match=f"(?i){TLS[kind]}"):
            httpx.post(url, verify=context, trust_env=False, timeout=300)
    assert link.asked == []
    failed = steps[-1]
    assert (failed.name, failed.fine) == ("TLS", False)
    assert failed.remedy


def test_plain_http_gets_nothing_from_the_gate(gate: Gate) -> None:
    text = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward") | {"content-length": "0"})
    with socket.create_connection(("127.0.0.1", gate.port), 300) as plain:
        assert b"HTTP" not in sent(plain, text)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"http://localhost:{gate.port}/v1/fleet/{CALL}", trust_env=False, timeout=300)
    assert gate.link.asked == []


def test_old_tls_is_refused(gate: Gate) -> None:
    old = gate.context
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", gate.port), 300) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA"])
def test_old_ciphers_are_refused(gate: Gate, ciphers: str) -> None:
    old = gate.context
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers(ciphers)
    with (
        socket.create_connection(("127.0.0.1", gate.port), 300) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain, server_hostname="localhost")
