"""The service keeps members and runs in step with a SuperLink, whatever its answers are."""

import importlib.util
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.deployment.coordinator import service
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.journal import Run, RunStatus, change_run, read_run, write_run
from cloister.deployment.coordinator.members import (
    approved,
    changing,
    invited,
    read_members,
    revoked,
)
from cloister.deployment.coordinator.service import (
    CoordinatorService,
    programs_of,
    refuse_taken,
    submit,
)
from cloister.deployment.enrolment.authority import ENDPOINT_LIFE
from cloister.deployment.flower.control import Node
from cloister.errors import BadFileError, NetworkError
from tests.support.papers import DAY, request
from tests.support.ports import free_port

NOW = datetime.now(UTC)


@dataclass
class SuperLink:
    """Registers nodes as Flower does: a key that was unregistered is never taken again."""

    known: dict[str, int] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)
    calls: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    on_start: Callable[[], None] = lambda: None

    def register(self, key: str) -> None:
        self.calls.append(("register", key))
        if self.away or key in self.spoilt or key in self.known:
            raise NetworkError("Public key already in use.")
        self.known[key] = len(self.calls)

    def unregister(self, node: int) -> None:
        key = next(key for key, one in self.known.items() if one == node)
        self.calls.append(("unregister", key))
        del self.known[key]
        self.spoilt.add(key)

    def nodes(self) -> list[Node]:
        if self.away:
            raise NetworkError("away")
        return [Node(node, key, True) for key, node in self.known.items()]

    def start(self, config: dict[str, str]) -> int:
        if self.away:
            raise NetworkError("away")
        self.on_start()
        return 42

    def close(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    config = ServerConfig(name="hub", address="localhost:9443")
    return ServerFolder.create(tmp_path / "hub", config, NOW)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    made = SuperLink()
    monkeypatch.setattr(service, "Control", lambda *arguments: made)
    return made


class Process:
    """As far as the service looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def running(folder: ServerFolder, pid: int = 100) -> CoordinatorService:
    made = CoordinatorService(folder)
    made.supervisor.children["superlink"].process = Process(pid)  # type: ignore[assignment]
    return made


def join(folder: ServerFolder, site: str, node: str = "") -> str:
    with changing(folder.members) as change:
        members = invited(read_members(folder.members), site, NOW)
        asked = request(site, members[site].token, node)
        change(approved(members, asked, NOW))
    return asked.node_key


def revoke(folder: ServerFolder, site: str) -> None:
    with changing(folder.members) as change:
        change(revoked(read_members(folder.members), site))


def test_nodes_are_the_members(folder: ServerFolder, link: SuperLink) -> None:
    made = running(folder)
    made._sync()
    assert link.known == {}
    ward, clinic = join(folder, "ward"), join(folder, "clinic")
    made._sync()
    assert set(link.known) == {ward, clinic}
    revoke(folder, "ward")
    made._sync()
    assert set(link.known) == {clinic}
    before = len(link.calls)
    made._sync()
    assert len(link.calls) == before  # nothing changed, nothing asked


def test_a_superlink_that_began_anew_gets_its_nodes_again(
    folder: ServerFolder, link: SuperLink
) -> None:
    made, ward = running(folder), join(folder, "ward")
    made._sync()
    link.known.clear()
    made.supervisor.children["superlink"].process = None
    made._sync()
    assert link.known == {}  # it does not run
    made.supervisor.children["superlink"].process = Process(101)  # type: ignore[assignment]
    made._sync()
    assert set(link.known) == {ward}


def test_a_change_within_the_same_tick_of_the_clock_is_noticed(
    folder: ServerFolder, link: SuperLink
) -> None:
    made = running(folder)
    join(folder, "ward")
    made._sync()
    at = folder.members.stat().st_mtime_ns
    revoke(folder, "ward")
    os.utime(folder.members, ns=(at, at))
    made._sync()
    assert link.known == {}


def test_one_key_that_flower_does_not_take_holds_up_no_other_change(
    folder: ServerFolder, link: SuperLink
) -> None:
    made = running(folder)
    gone = join(folder, "gone")
    made._sync()
    link.spoilt.add(request("ward").node_key)
    revoke(folder, "gone")
    join(folder, "ward")
    clinic, abbey = join(folder, "clinic"), join(folder, "abbey")
    made._sync()
    assert set(link.known) == {clinic, abbey}
    assert link.calls[1] == ("unregister", gone)  # first of all
    link.spoilt.clear()
    made._sync()
    assert len(link.known) == 3  # tried again


def test_a_membership_that_is_over_stays_registered(folder: ServerFolder, link: SuperLink) -> None:
    """Flower would not take its key again when it is renewed; the gate refuses it meanwhile."""
    made, ward = running(folder), join(folder, "ward")
    made._sync()
    text = folder.members.read_text()
    (member,) = read_members(folder.members).values()
    folder.members.write_text(text.replace(member.expires, NOW.isoformat()))
    made._sync()
    assert set(link.known) == {ward}
    assert link.spoilt == set()


def test_a_superlink_that_is_away_is_asked_again(folder: ServerFolder, link: SuperLink) -> None:
    made, ward = running(folder), join(folder, "ward")
    link.away = True
    with pytest.raises(NetworkError):
        made._sync()
    link.away = False
    made._sync()
    assert set(link.known) == {ward}


def test_a_certificate_that_cannot_be_renewed_ends_nothing(
    folder: ServerFolder, link: SuperLink
) -> None:
    made = running(folder)
    (folder.path / "ca.key").unlink()
    (folder.path / "endpoint.crt").unlink()
    made._renew()
    assert not (folder.path / "endpoint.crt").exists()


def test_a_service_without_the_authority_s_key_serves_until_its_certificate_is_over(
    folder: ServerFolder, link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is encrypted, or on a stick: what is due is said, and what is over ends the start."""
    made, key = running(folder), folder.path / "ca.key"
    content, restarted = key.read_bytes(), list[str]()
    monkeypatch.setattr(made.supervisor, "restart", restarted.append)
    key.unlink()
    clock = Clock(NOW + ENDPOINT_LIFE / 2 + DAY)
    monkeypatch.setattr(service, "datetime", clock)
    made._renew(starting=True)
    made._shown = made._certificate()
    made._show()
    assert restarted == []
    key.write_bytes(content)
    folder.renew(clock.at)  # by hand, as `cloister server renew` does
    made._show()
    made._show()
    assert restarted == ["gate"]
    key.unlink()
    clock.at += 2 * ENDPOINT_LIFE
    with pytest.raises(BadFileError, match="backup"):
        made._renew(starting=True)
    made._renew()  # while it runs, nothing ends


@dataclass
class Clock:
    """Stands still."""

    at: datetime

    def now(self, zone: object) -> datetime:
        return self.at


def begun(folder: ServerFolder, standing: RunStatus = RunStatus.INTERRUPTED) -> Run:
    place = folder.run("triage")
    place.mkdir()
    (place / "recipe.toml").write_text("[study]\n")
    run = Run(name="triage", standing=standing, flower_run=1, sites=("ward",), resumed=3)
    write_run(place, run)
    return run


def test_a_run_that_starts_at_once_is_not_called_waiting(
    folder: ServerFolder, link: SuperLink
) -> None:
    """The executor may say that it runs before the SuperLink's answer is here."""
    run, place = begun(folder), folder.run("triage")
    link.on_start = lambda: change_run(place, standing=RunStatus.RUNNING) and None
    assert submit(folder, run).standing is RunStatus.RUNNING
    now = read_run(place)
    assert (now.standing, now.flower_run, now.resumed) == (RunStatus.RUNNING, 42, 4)


def test_a_run_that_could_not_be_handed_over_stands_as_before(
    folder: ServerFolder, link: SuperLink
) -> None:
    run = begun(folder)
    link.away = True
    with pytest.raises(NetworkError):
        submit(folder, run)
    assert read_run(folder.run("triage")) == run


def test_interrupted_runs_go_on_by_themselves_and_not_for_ever(
    folder: ServerFolder, link: SuperLink
) -> None:
    made, place = running(folder), folder.run("triage")
    begun(folder)
    (folder.runs / "broken").mkdir()
    (folder.runs / "broken" / "run.json").write_text("damaged")
    made._resume()
    assert read_run(place).standing is RunStatus.SUBMITTED
    change_run(place, standing=RunStatus.INTERRUPTED, resumed=service.MOST_RESUMES)
    made._resume()
    assert read_run(place).standing is RunStatus.FAILED
    assert "interrupted 20 times" in read_run(place).error


def test_a_taken_port_is_named() -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{port}: cannot listen there"):
            refuse_taken("127.0.0.1", port)
    refuse_taken("127.0.0.1", port)


def test_the_programs_that_are_started_are_there(folder: ServerFolder) -> None:
    """A module that moved would be found missing by a running coordinator only."""
    modules = [
        word
        for program in programs_of(folder)
        for word in program.command
        if word.startswith("cloister.")
    ]
    assert {name.rpartition(".")[2] for name in modules} >= {"gate", "executor"}
    for name in modules:
        assert importlib.util.find_spec(name) is not None, name
