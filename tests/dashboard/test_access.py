"""The dashboard only reads, needs a token from other machines, and accepts known host names."""

import asyncio
import base64
import socket
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from cloister.cli.main import run
from cloister.dashboard.access_token import VARIABLE, demand_token, is_loopback, read_token
from cloister.dashboard.app import make_app
from cloister.dashboard.sources import Page, Source, open_source
from cloister.errors import BadFileError, LedgerError, UsageError
from tests.support.dashboards import coordinator_folder, site_folder

TOKEN = "a-token-of-23-characters"
PLACES = ("/", "/metrics", "/refresh.js")


def asked(
    app: ASGIApp, path: str, method: str = "GET", host: str = "localhost:8090", **headers: str
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            return await client.request(method, path, headers=raw)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(coordinator_folder(tmp_path_factory.mktemp("desk")).path, {})


@pytest.mark.parametrize("token", [None, TOKEN])
def test_only_get_is_answered(source: Source, token: str | None) -> None:
    app, headers = make_app(source, token), {"authorization": f"Bearer {TOKEN}"}
    for path in PLACES:
        assert asked(app, path, **headers).status_code == 200
        for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            assert asked(app, path, method, **headers).status_code == 405
    for path in ("/etc/passwd", "/../server.toml", "/docs", "/openapi.json", "/static/style.css"):
        assert asked(app, path, **headers).status_code == 404


def test_the_token_is_taken_from_monitoring_and_from_a_browser_s_dialogue(source: Source) -> None:
    app = make_app(source, TOKEN)
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        for path in PLACES:
            assert asked(app, path, authorization=shown, host="fed.example.org").status_code == 200


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ÿ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        TOKEN,
    ],
)
def test_another_token_is_refused_everywhere(source: Source, shown: str) -> None:
    app = make_app(source, TOKEN)
    for path in (*PLACES, f"/?token={TOKEN}", "/nowhere"):
        answer = asked(app, path, authorization=shown)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert "triage" not in answer.text


def test_without_a_token_a_foreign_name_is_not_answered(source: Source) -> None:
    app = make_app(source, None)
    for host in ("localhost", "localhost:8090", "127.0.0.1:8090", "[::1]:8090", "[::1]"):
        assert asked(app, "/", host=host).status_code == 200, host
    for host in ("evil.example", "evil.example:8090", "localhost.evil.example", "127.0.0.1.nip.io"):
        assert asked(app, "/", host=host).status_code == 421, host


def test_every_answer_forbids_what_a_page_does_not_need(source: Source) -> None:
    for app in (make_app(source, None), make_app(source, TOKEN)):
        for path in (*PLACES, "/nowhere"):
            headers = asked(app, path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"


def test_pages_of_a_site_lead_to_each_other(tmp_path: Path) -> None:
    app = make_app(open_source(site_folder(tmp_path / "ward", rounds=2).path, {}), None)
    assert 'href="audit"' in asked(app, "/").text
    assert 'href="."' in asked(app, "/audit").text
    assert 'src="refresh.js"' in asked(app, "/audit").text


def test_what_goes_wrong_later_is_said_on_the_page() -> None:
    def broken(now: object) -> object:
        raise LedgerError("entry 3: <b>damaged</b>")

    app = make_app(Source([Page("audit", "Audit", broken)], None), None)
    answer = asked(app, "/")
    assert answer.status_code == 503
    assert "&lt;b&gt;damaged" in answer.text
    assert asked(app, "/metrics").status_code == 404  # a ledger alone has none


def test_the_token_comes_from_the_environment_or_a_file_of_its_owner_s(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(None, {}) is None
    assert read_token(None, {VARIABLE: TOKEN}) == TOKEN
    assert read_token(file, {VARIABLE: "another-of-enough-characters"}) == TOKEN
    file.chmod(0o640)
    with pytest.raises(BadFileError, match="chmod 600"):
        read_token(file, {})
    with pytest.raises(BadFileError, match="openssl rand"):
        read_token(tmp_path / "none", {})
    with pytest.raises(UsageError, match="too short"):
        read_token(None, {VARIABLE: "short"})


def test_beyond_this_machine_a_token_is_demanded(
    source: Source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    demand_token("0.0.0.0", TOKEN)
    for host in ("localhost", "127.0.0.1", "::1"):
        assert is_loopback(host)
        demand_token(host, None)
    desk = coordinator_folder(tmp_path / "desk").path
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        assert run(["dashboard", str(desk), "--host", host]) == 2
        assert "--token dashboard.token" in capsys.readouterr().err
    assert run(["dashboard", str(desk), "--host", "hospital"]) == 2


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = coordinator_folder(tmp_path / "desk").path
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["dashboard", str(desk), "--port", port]) == 7
    assert "choose another --port" in capsys.readouterr().err
