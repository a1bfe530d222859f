"""A site's status names its obstacles, also while the coordinator is down."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.site import connectivity
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.status import in_the_way
from tests.support.federation import admit


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of this machine at which nobody answers until the test listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


@pytest.fixture
def site(tmp_path: Path, listener: socket.socket) -> SiteFile:
    """A site that was let in by a coordinator at that port."""
    now, address = datetime.now(UTC), f"localhost:{listener.getsockname()[1]}"
    server = ServerFolder.create(tmp_path / "hub", ServerConfig(name="hub", address=address), now)
    (tmp_path / "site.toml").write_text(EXAMPLE)
    (tmp_path / "records.jsonl").write_text('{"text": "a", "label": "b", "patient_id": "1"}')
    file = read_site(tmp_path / "site.toml")
    begin_ledger(file)
    admit(server, file, now)
    return file


def running(file: SiteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = AgentFolder.of(file)
    folder.path.mkdir(exist_ok=True)
    folder.service.write_text(f'{{"pid": {os.getpid()}, "children": {{}}}}')
    monkeypatch.setattr("cloister.deployment.site.agent_folder.is_cloister", lambda pid: True)


def test_a_site_is_told_what_it_has_to_do_first(site: SiteFile) -> None:
    assert f"cloister site start {site.path}" in in_the_way(site)
    folder = SiteMembership.of(site).path
    (folder / "welcome.json").unlink()
    said = in_the_way(site)
    assert "has not approved it yet" in said
    assert str(SiteMembership.of(site).request) in said
    (folder / "invite.json").unlink()
    assert "has not joined a federation" in in_the_way(site)


def test_a_coordinator_that_is_down_is_said_to_be(
    site: SiteFile,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running(site, monkeypatch)
    assert run(["site", "status", str(site.path)]) == 0
    told = capsys.readouterr().out
    assert "in the way: it cannot reach its coordinator (port: localhost:" in told
    assert "ask the coordinator whether it is running" in told
    listener.listen()
    assert in_the_way(site) == ""
    assert run(["site", "status", str(site.path)]) == 0
    assert "in the way" not in capsys.readouterr().out


def test_a_name_that_is_not_found_is_said_and_a_proxy_is_not_looked_through(
    site: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(site, monkeypatch)

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(connectivity.socket, "getaddrinfo", unknown)
    assert "name: localhost: no such name" in in_the_way(site)
    monkeypatch.setattr(connectivity, "proxy_for", lambda host: "http://proxy:8080")
    assert in_the_way(site) == ""


def test_an_invite_that_cannot_be_read_is_said(
    site: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(site, monkeypatch)
    (SiteMembership.of(site).path / "invite.json").write_text("damaged")
    assert "invite.json" in in_the_way(site)
