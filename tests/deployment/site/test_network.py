"""A site's processes get network access only if its base needs it."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from cloister.client.site_file import SiteFile, read_site
from cloister.deployment.flower.environment import OFFLINE
from cloister.deployment.proxies import LOOPBACK
from cloister.deployment.site import network_access as network
from cloister.deployment.site import service
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.network_access import in_words, leave, needs_hub
from cloister.deployment.site.service import SiteService
from tests.support.federation import federation

BASES = {
    "absent": ("", False),
    "a folder": ('model = "base"\n', False),
    "the hub's": ('model = "sentence-transformers/all-MiniLM-L6-v2"\n', True),
    "a folder that is gone": ('model = "owner/gone"\n', True),
}


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `site.toml` of a site that a coordinator approved, without a base."""
    with federation(tmp_path_factory.mktemp("sites"), ("ward",)) as made:
        path = made.sites["ward"].path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("model = ")))
    (path.parent / "base").mkdir()
    return path


def with_base(path: Path, line: str) -> SiteFile:
    text = path.read_text()
    copy = path.with_name("site-with-base.toml")
    copy.write_text(text.replace("[site]\n", f"[site]\n{line}", 1))
    return read_site(copy)


@pytest.mark.parametrize(("line", "fetches"), BASES.values(), ids=BASES.keys())
def test_a_site_whose_base_is_here_asks_no_hub_and_has_no_network(
    joined: Path, monkeypatch: pytest.MonkeyPatch, line: str, fetches: bool
) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    file = with_base(joined, line)
    left: list[int] = []
    monkeypatch.setattr(network, "leave_the_network", lambda: left.append(1) or True)
    assert needs_hub(file) is fetches
    assert ("may be fetched" in leave(file)) is fetches
    assert ("has no network" in in_words(file)) is not fetches
    assert left == ([] if fetches else [1])
    for program in SiteService(file).supervisor.programs:
        told = {name: program.environment.get(name) for name in OFFLINE}
        assert told == (dict.fromkeys(OFFLINE) if fetches else OFFLINE), program.name
        assert set(LOOPBACK) <= set(program.environment["NO_PROXY"].split(","))


def test_a_system_without_filters_says_so(joined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "leave_the_network", lambda: False)
    assert "cannot filter system calls" in leave(with_base(joined, ""))


def test_no_program_of_a_site_is_told_a_port(joined: Path) -> None:
    file = with_base(joined, "")
    folder = AgentFolder.of(file)
    for program in SiteService(file).supervisor.programs:
        assert not any(word.startswith("127.0.0.1") for word in program.command)
    assert stat.S_IMODE(folder.socket.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes away")
def test_the_socket_is_the_agent_s_where_it_has_a_user(
    joined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.deployment.flower.sockets import listening

    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(service, "_user", lambda name: nobody.pw_uid)
    file = with_base(joined, "")
    folder = AgentFolder.of(file)
    SiteService(file)
    listening(folder.socket).close()
    for place, mode in ((folder.socket.parent, 0o700), (folder.socket, 0o600)):
        assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (nobody.pw_uid, mode)
