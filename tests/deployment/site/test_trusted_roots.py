"""A running site accepts a new authority by itself, but never during a round."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.rotation import OVERLAP, announce, switch
from cloister.deployment.enrolment.succession import certificates
from cloister.deployment.site import service
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership, take_invite
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.service import SiteService
from cloister.deployment.site.trust import take_succession
from tests.support.federation import admit

NOW = datetime.now(UTC)


class Clock:
    """Stands still, and moves the service's ticks with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.ticks = NOW, 1000.0
        monkeypatch.setattr(service, "datetime", self)
        monkeypatch.setattr(service.time, "monotonic", lambda: self.ticks)

    def now(self, zone: object) -> datetime:
        return self.at

    def passes(self) -> None:
        """As long as between two looks."""
        self.ticks += service.TRUST_TICK + 1


@pytest.fixture
def hub(tmp_path: Path) -> ServerFolder:
    config = ServerConfig(name="hub", address="localhost:9443")
    return ServerFolder.create(tmp_path / "hub", config, NOW)


@pytest.fixture
def site(hub: ServerFolder, tmp_path: Path) -> SiteFile:
    (tmp_path / "site.toml").write_text(EXAMPLE)
    file = read_site(tmp_path / "site.toml")
    begin_ledger(file)
    admit(hub, file, NOW)
    return file


def test_a_running_site_takes_an_authority_up_between_two_rounds(
    hub: ServerFolder, site: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, restarted = Clock(monkeypatch), list[str]()
    made, folder = SiteService(site), SiteMembership.of(site)
    monkeypatch.setattr(made.supervisor, "restart", restarted.append)
    agent = AgentFolder.of(site)
    clock.passes()
    made._tick()
    assert restarted == []
    paper = announce(hub, NOW, None)
    take_succession(folder.path, hub.path / "succession.json", paper.fingerprint, NOW)
    for word in ("preparing", "training", "evaluating", "voting", "taking the adapter"):
        agent.note_activity({"doing": word})
        clock.passes()
        made._tick()
        assert restarted == []
    agent.note_activity({"doing": "waiting"})
    made._tick()  # too early to look
    assert restarted == []
    clock.passes()
    made._tick()
    clock.passes()
    made._tick()
    assert restarted == ["supernode"]
    clock.at += OVERLAP
    clock.passes()
    made._tick()
    assert restarted == ["supernode", "supernode"]
    assert folder.authority.read_text() == paper.authority


def test_a_site_that_starts_after_the_overlap_trusts_the_new_one_alone(
    hub: ServerFolder, site: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, folder = Clock(monkeypatch), SiteMembership.of(site)
    paper = announce(hub, NOW, None)
    take_succession(folder.path, hub.path / "succession.json", paper.fingerprint, NOW)
    assert len(certificates(folder.authority.read_bytes())) == 2
    clock.at += OVERLAP
    SiteService(site)
    assert folder.authority.read_text() == paper.authority


def test_a_site_that_joins_again_keeps_what_it_trusts(hub: ServerFolder, site: SiteFile) -> None:
    """With the invite that it took, by the former authority; its own fingerprint is compared."""
    folder = SiteMembership.of(site)
    paper = announce(hub, NOW, None)
    take_succession(folder.path, hub.path / "succession.json", paper.fingerprint, NOW)
    before, invite = folder.authority.read_bytes(), folder.invite
    take_invite(site, folder.path / "invite.json", invite.fingerprint, NOW, False)
    assert folder.authority.read_bytes() == before
    switch(hub, running=False)
    shutil.rmtree(folder.path)
    admit_again(hub, site)
    assert folder.authority.read_text() == paper.authority


def admit_again(hub: ServerFolder, site: SiteFile) -> None:
    hub.members.unlink()
    admit(hub, site, NOW)
