"""The whole enrolment at the terminal; each mistake ends in one message."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import EXAMPLE, read_site
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import Run, RunStatus, read_run, write_run
from cloister.deployment.coordinator.members import read_members
from cloister.deployment.flower import control
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.trusted_key import trusted_coordinator
from cloister.protocol.signed_questions import TrustedCoordinator
from cloister.recipe import Recipe

GROUPS = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{8}){7}\b")
Capture = pytest.CaptureFixture[str]


class Table:
    """A coordinator and a site at one table, each with a terminal.

    Args:
        folder: Where both keep their files.
        capsys: What they see.
    """

    def __init__(self, folder: Path, capsys: Capture) -> None:
        self.folder, self._capsys = folder, capsys
        self.server = folder / "hub"
        self.site = folder / "st-marys" / "site.toml"

    def does(self, *words: object) -> str:
        """Runs a command that succeeds; what it prints."""
        self._capsys.readouterr()
        assert run([str(word) for word in words]) == 0, words
        return self._capsys.readouterr().out

    def fails(self, code: int, *words: object) -> str:
        """Runs a command that fails with this exit code; its one message, on one line."""
        self._capsys.readouterr()
        assert run([str(word) for word in words]) == code, words
        captured = self._capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert captured.err.count("cloister: ") == 1
        return " ".join(captured.err.removeprefix("cloister: ").split())

    def init(self) -> str:
        told = self.does("server", "init", self.server, "--address", "fed.example.org:9443")
        return GROUPS.findall(told)[0]

    def invite(self, site: str = "st-marys") -> Path:
        path = self.folder / f"{site}.invite.json"
        self.does("member", "invite", site, "--server", self.server, "--out", path)
        return path

    def join(self, invite: Path, fingerprint: str, *more: str) -> str:
        told = self.does("site", "join", self.site, invite, "--fingerprint", fingerprint, *more)
        return GROUPS.findall(told)[0]

    @property
    def request(self) -> Path:
        return SiteMembership.of(read_site(self.site)).request

    def approve(self, fingerprint: str) -> Path:
        path = self.folder / "welcome.json"
        self.does(
            "member",
            "approve",
            self.request,
            "--fingerprint",
            fingerprint,
            "--server",
            self.server,
            "--out",
            path,
        )
        return path

    def members(self) -> dict[str, str]:
        told = self.does("member", "list", "--server", self.server, "--json")
        return {row["site"]: row["standing"] for row in json.loads(told)["members"]}


@pytest.fixture
def table(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.chdir(tmp_path)
    made = Table(tmp_path, capsys)
    made.site.parent.mkdir()
    made.site.write_text(EXAMPLE)
    rows = [{"text": "chest pain", "label": "cardiology", "patient_id": str(n)} for n in range(3)]
    (made.site.parent / "records.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made.does("site", "init", made.site, "--yes")
    return made


def test_a_site_joins_by_the_commands_that_it_is_told(table: Table) -> None:
    fingerprint = table.init()
    told = table.does("member", "invite", "st-marys", "--server", table.server)
    assert GROUPS.findall(told) == [fingerprint]
    invite = table.folder / "st-marys.invite.json"
    assert table.members() == {"st-marys": "invited"}
    asked = table.join(invite, fingerprint)
    assert asked != fingerprint
    welcome = table.approve(asked)
    assert table.members() == {"st-marys": "approved"}
    assert "may connect until" in table.does("site", "join", table.site, welcome)
    assert "1,200 declared" in table.does("member", "list", "--server", table.server)
    status = json.loads(table.does("server", "status", table.server, "--json"))
    assert [(row["site"], row["standing"]) for row in status["sites"]] == [("st-marys", "approved")]
    assert "refused from now on" in table.does(
        "member", "revoke", "st-marys", "--server", table.server
    )
    assert table.members() == {"st-marys": "revoked"}


def test_a_site_that_joined_before_takes_the_coordinator_s_key_by_a_command(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after the coordinator made another; until then its service does not even start."""
    fingerprint = table.init()
    welcome = table.approve(table.join(table.invite(), fingerprint))
    table.does("site", "join", table.site, welcome)
    file = read_site(table.site)
    SiteMembership.of(file).coordinator.unlink()
    said = table.fails(3, "site", "start", table.site)
    assert "answers no questions without one" in said
    assert "cloister site trust" in said
    public, told = table.does("server", "key", table.server).split()
    stored = table.folder / "coordinator.pub"
    table.does("server", "key", table.server, "--out", stored)
    for given in (public, stored):
        assert told in table.fails(2, "site", "trust", table.site, given)
        words = ("site", "trust", table.site, given, "--fingerprint")
        assert "do not accept it" in table.fails(7, *words, fingerprint)
        assert "and no others" in table.does(*words, told)
        assert trusted_coordinator(file) == TrustedCoordinator(public, "st-marys")
    assert "not a coordinator's public key" in table.fails(
        3, "site", "trust", table.site, table.site, "--fingerprint", told
    )
    renewed = table.does("server", "key", table.server, "--renew")
    shown = json.loads(table.does("server", "key", table.server, "--json"))
    assert shown["key"] in renewed
    assert shown["fingerprint"] in renewed
    assert shown["key"] != public
    assert trusted_coordinator(file).key == public  # until its operator says otherwise
    table.does("site", "trust", table.site, shown["key"], "--fingerprint", shown["fingerprint"])
    assert trusted_coordinator(file).key == shown["key"]
    monkeypatch.setattr(
        "cloister.deployment.coordinator.status.read_service", lambda folder: {"pid": 1}
    )
    assert "the service first" in table.fails(2, "server", "key", table.server, "--renew")


def test_a_key_is_of_no_use_to_who_joined_nobody(table: Table) -> None:
    table.init()
    public, told = table.does("server", "key", table.server).split()
    assert "has not joined a federation yet" in table.fails(
        3, "site", "trust", table.site, public, "--fingerprint", told
    )


def test_nothing_private_is_in_any_paper(table: Table) -> None:
    fingerprint = table.init()
    invite = table.invite()
    welcome = table.approve(table.join(invite, fingerprint))
    keys = [*table.server.glob("*.key"), *table.site.parent.rglob("*key")]
    assert len(keys) == 5
    secrets: list[str] = []
    for key in keys:
        lines = [line for line in key.read_text().splitlines() if "KEY" not in line]
        # The last line of several holds a part of the public point alone, which papers do hold.
        secrets += lines[:-1] or lines
    for paper in (invite, table.request, welcome):
        text = paper.read_text()
        assert not [line for line in secrets if len(line) > 30 and line in text]


def test_a_coordinator_is_made_once(table: Table) -> None:
    fingerprint = table.init()
    init = ("server", "init", table.server)
    assert "authority is kept" in table.fails(2, *init, "--address", "fed.example.org:9443")
    (table.server / "server.toml").unlink()
    assert table.init() == fingerprint
    assert "--address: missing" in table.fails(2, "server", "init", table.folder / "new")
    for address in ("fed.example.org", "fed:0", "fed:70000", ":9443", "https://fed:1"):
        said = table.fails(2, "server", "init", table.folder / "new", "--address", address)
        assert "host:port is needed, as in fed.example.org:9443" in said
    said = table.fails(2, *init, "--address", "f:1", "--name", "../hub")
    assert "a plain name is needed" in said
    (table.folder / "file").write_text("")
    said = table.fails(3, "server", "init", table.folder / "file" / "hub", "--address", "f:1")
    assert "choose another" in said


@pytest.mark.parametrize(
    "words",
    [
        ("member", "invite", "st-marys"),
        ("member", "list"),
        ("member", "revoke", "x"),
        ("run", "list"),
        ("run", "stop", "x"),
    ],
)
def test_without_a_coordinator_every_command_says_what_makes_one(
    table: Table, words: tuple[str, ...]
) -> None:
    said = table.fails(3, *words, "--server", table.folder / "none")
    assert "cloister server init" in said


def test_wrong_invites_are_not_written(table: Table) -> None:
    fingerprint, server = table.init(), ("--server", table.server)
    assert "not valid as a site's name" in table.fails(2, "member", "invite", "../x", *server)
    said = table.fails(3, "member", "invite", "x", *server, "--out", table.folder / "no" / "x")
    assert "name another place" in said
    assert table.members() == {}  # an invite that nobody got is none
    table.approve(table.join(table.invite(), fingerprint))
    said = table.fails(2, "member", "invite", "st-marys", *server)
    assert "is a member already" in said


def test_a_name_that_is_taken_is_refused_with_options_that_run_start_has(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.init()
    deployed = "cloister.deployment.coordinator.deployed"
    monkeypatch.setattr(f"{deployed}.resolved_recipe", lambda *arguments: Recipe())
    sites = "cloister.deployment.coordinator.member_sites"
    monkeypatch.setattr(f"{sites}.plans_of", lambda *arguments: {})
    (table.server / "runs" / "triage").mkdir()
    recipe = table.folder / "study.toml"
    recipe.write_text("")
    start = ("run", "start", recipe, "--server", table.server, "--name", "triage")
    said = table.fails(2, *start)
    assert "choose another --name" in said
    assert f"cloister run resume triage --server {table.server}" in said
    assert "--out" not in said
    assert "--resume" not in said


def test_a_site_takes_no_paper_that_it_cannot_trust(table: Table) -> None:
    fingerprint, join = table.init(), ("site", "join", table.site)
    invite = table.invite()
    said = table.fails(2, *join, invite)
    assert "over another channel" in said
    assert fingerprint in said
    said = table.fails(7, *join, invite, "--fingerprint", "0" * 64)
    assert "do not use it" in said
    other = table.invite("clinic")
    said = table.fails(3, *join, other, "--fingerprint", fingerprint)
    assert "invites clinic, but this site is st-marys" in said
    changed = table.folder / "changed.json"
    changed.write_text(invite.read_text().replace("fed.example.org", "bad.example.org"))
    said = table.fails(7, *join, changed, "--fingerprint", fingerprint)
    assert "changed after it was signed" in said
    changed.write_text(invite.read_text()[:-20])
    assert "cannot be read" in table.fails(3, *join, changed, "--fingerprint", fingerprint)
    changed.write_text("{}")
    assert "not an invite, request or welcome" in table.fails(3, *join, changed)
    assert "cannot be read" in table.fails(3, *join, table.folder / "none.json")
    assert "cannot be read" in table.fails(3, "site", "join", table.folder / "no.toml", invite)
    assert not table.request.exists()
    table.join(invite, fingerprint)
    said = table.fails(3, *join, table.request)
    assert "an invite or a welcome is needed" in said


def test_a_coordinator_approves_nothing_that_it_cannot_trust(table: Table) -> None:
    fingerprint = table.init()
    invite = table.invite()
    asked = table.join(invite, fingerprint)
    approve = ("member", "approve", table.request, "--server", table.server)
    said = table.fails(2, *approve)
    assert "over another channel" in said
    assert asked in said
    assert "do not approve it" in table.fails(7, *approve, "--fingerprint", fingerprint)
    changed = table.folder / "changed.json"
    changed.write_text(table.request.read_text().replace("1200", "1201"))
    said = table.fails(7, "member", "approve", changed, "--server", table.server)
    assert "is not signed by the keys in it" in said
    said = table.fails(3, "member", "approve", invite, "--server", table.server)
    assert "is the invite; the request is needed" in said
    assert table.members() == {"st-marys": "invited"}
    table.invite()  # voids the first
    said = table.fails(7, *approve, "--fingerprint", asked)
    assert "cloister member invite st-marys writes a new one" in said
    other = table.folder / "other"
    table.does("server", "init", other, "--address", "other.example.org:9443")
    said = table.fails(
        7, "member", "approve", table.request, "--server", other, "--fingerprint", asked
    )
    assert "does not answer the last invite of this coordinator" in said


def test_a_welcome_is_taken_by_whom_it_is_for(table: Table) -> None:
    join = ("site", "join", table.site)
    fingerprint = table.init()
    invite = table.invite()
    asked = table.join(invite, fingerprint)
    welcome = table.approve(asked)
    changed = table.folder / "changed.json"
    changed.write_text(welcome.read_text().replace("+00:00", "+01:00"))
    said = table.fails(7, *join, changed)
    assert "not signed by the coordinator whose invite was accepted" in said
    folder = SiteMembership.of(read_site(table.site)).path
    kept = folder.rename(folder.with_suffix(".kept"))
    assert "join with the coordinator's invite first" in table.fails(3, *join, welcome)
    table.join(invite, fingerprint)  # with another key
    assert "another request than this site's last one" in table.fails(7, *join, welcome)
    shutil.rmtree(folder)
    kept.rename(folder)
    table.does(*join, welcome)
    table.does(*join, welcome)  # twice changes nothing


def test_a_site_does_not_start_before_it_is_approved(table: Table) -> None:
    table.does("site", "init", table.site)
    assert "has not joined a federation yet" in table.fails(3, "site", "start", table.site)
    fingerprint = table.init()
    table.join(table.invite(), fingerprint)
    said = table.fails(2, "site", "start", table.site)
    assert "has not approved this site yet" in said
    assert "cloister site join" in said
    assert "is not running" in table.does("site", "stop", table.site)


def test_a_key_is_rotated_and_the_old_one_never_comes_back(table: Table) -> None:
    join = ("site", "join", table.site)
    fingerprint = table.init()
    invite = table.invite()
    first = table.join(invite, fingerprint)
    old = table.folder / "old.json"
    table.does(*join, table.approve(first))
    old.write_text(table.request.read_text())
    second = table.join(invite, fingerprint, "--rotate")
    assert second != first
    table.does(*join, table.approve(second))
    said = table.fails(
        7, "member", "approve", old, "--server", table.server, "--fingerprint", first
    )
    assert "was revoked or replaced" in said
    assert "--rotate" in said
    table.does("member", "revoke", "st-marys", "--server", table.server)
    third = table.join(table.invite(), fingerprint)
    said = table.fails(
        7, "member", "approve", table.request, "--server", table.server, "--fingerprint", third
    )
    assert "--rotate" in said
    fourth = table.join(table.folder / "st-marys.invite.json", fingerprint, "--rotate")
    table.does(*join, table.approve(fourth))
    assert table.members() == {"st-marys": "approved"}


def test_damaged_files_are_named(table: Table) -> None:
    table.init()
    folder = ServerFolder.open(table.server)
    folder.members.write_text("damaged")
    for words in (("list",), ("invite", "x"), ("revoke", "x")):
        said = table.fails(3, "member", *words, "--server", table.server)
        assert "restore it from a backup" in said
    folder.members.unlink()
    (table.server / "ca.key").write_text("damaged")
    said = table.fails(3, "member", "invite", "x", "--server", table.server)
    assert "restore ca.key and ca.crt" in said
    (table.server / "server.toml").write_text('name = "hub"\nadress = "f:1"\n')
    said = table.fails(2, "member", "list", "--server", table.server)
    assert "address: missing" in said


def test_strangers_are_not_revoked(table: Table) -> None:
    table.init()
    said = table.fails(2, "member", "revoke", "clinic", "--server", table.server)
    assert "not a site of this coordinator; it knows: none" in said


def test_runs_that_are_not_there_or_over_are_named(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.init()
    runs, server = ServerFolder.open(table.server).runs, ("--server", table.server)
    for verb in ("watch", "stop", "resume"):
        assert "cloister run list" in table.fails(3, "run", verb, "none", *server)
        assert "not the name of a run" in table.fails(2, "run", verb, "../hub", *server)
    (runs / "old").mkdir()
    over = Run(name="old", standing=RunStatus.FINISHED, flower_run=1, sites=("st-marys",))
    write_run(runs / "old", over)
    assert "has ended already (finished)" in table.fails(2, "run", "stop", "old", *server)
    assert "is finished; its result is in" in table.fails(2, "run", "resume", "old", *server)
    assert read_run(runs / "old") == over
    (runs / "new").mkdir()
    write_run(runs / "new", Run(name="new", standing=RunStatus.RUNNING, flower_run=1, sites=()))
    assert "has not ended (running)" in table.fails(2, "run", "resume", "new", *server)
    monkeypatch.setattr(control.ControlHttpClient, "StopRun", _away)
    assert "cloister server start" in table.fails(7, "run", "stop", "new", *server)
    assert read_run(runs / "new").standing is RunStatus.STOPPING  # wanted, whoever comes
    (runs / "odd").mkdir()
    (runs / "odd" / "run.json").write_text("damaged")
    listed = json.loads(table.does("run", "list", *server, "--json"))["runs"]
    assert [(row["name"], row["standing"]) for row in listed] == [
        ("new", "stopping"),
        ("odd", "failed"),
        ("old", "finished"),
    ]


def _away(*arguments: object) -> None:
    raise control.httpx.ConnectError("no service listens")


def test_members_keep_what_was_approved(table: Table) -> None:
    fingerprint = table.init()
    table.approve(table.join(table.invite(), fingerprint))
    (member,) = read_members(table.server / "members.json").values()
    assert member.public_records == 1200
    assert member.node_key.startswith("-----BEGIN PUBLIC KEY-----")
