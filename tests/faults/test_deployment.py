"""A deployment of real processes on loopback, and what it does when they are killed."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.deployment.coordinator.journal import RunStatus, events, read_run
from cloister.deployment.coordinator.reply_size import BESIDE, WITHOUT_STUDY, Largest
from cloister.deployment.flower import control
from cloister.deployment.flower.control import BUNDLE
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.status import site_status
from cloister.ledger.storage import LedgerFile
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation, wait_for


def started(made: Federation) -> None:
    for who in ("server", *made.sites):
        made.start(who)


def processes(made: Federation) -> dict[str, int]:
    """Every process of a federation, as `server/gate`; a service itself as `server`."""
    found = {who: process.pid for who, process in made.processes.items()}
    for who in made.processes:
        own = ("superlink", "gate", "executor") if who == "server" else ("supernode", "agent")
        found |= {f"{who}/{name}": pid for name in own if (pid := made.child(who, name))}
    return found


def holds_torch(pid: int) -> bool:
    return "/torch/" in Path(f"/proc/{pid}/maps").read_text()


def test_a_study_over_a_network_and_its_papers(tmp_path: Path) -> None:
    """Two sites, two rounds: the contract with Flower's private parts, end to end."""
    with federation(tmp_path, epsilon="20.0", noise=0.8) as made:
        started(made)
        place = made.submit("first", 2)
        assert made.wait_ended("first") is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == [1, 2]
        assert all(set(row["received"]) == {"east", "west"} for row in rows)
        assert check_history(made, "first") == {"reserved": 4, "released": 4, "counted": 4}
        training = {"server/executor", "east/agent", "west/agent"}
        assert {who for who, pid in processes(made).items() if holds_torch(pid)} == training
        assert (place / "adapter" / "adapter_config.json").is_file()
        card = (place / "adapter" / "README.md").read_text()
        for site in made.sites:  # written from what each site signed, asked for at the end
            assert (place / "certificates" / f"{site}.certificate.json").is_file()
            assert f"| {site} |" in card
        assert "no certificate" not in card
        told = [event["what"] for _, event in events(place)]
        assert told.count("asked") == told.count("answered") == 4
        assert told.count("preparing") == told.count("ready") == 2
        # The gate held replies to what this study's can be.
        flower_run = read_run(place).flower_run
        assert BESIDE < Largest(made.server.largest)(flower_run) < WITHOUT_STUDY
        for name, file in made.sites.items():
            facts = site_status(file)
            # Whether it takes part, two rounds, its certificate, and the adapter.
            assert facts["activity"]["answered"] == 5
            (kept,) = facts["adapters"]
            weights = Path(kept["folder"]) / "adapter_model.safetensors"
            own = (place / "adapter" / "adapter_model.safetensors").read_bytes()
            assert weights.read_bytes() == own
            assert len(facts["releases"]) == 2
            assert facts["refusals"] == []
            assert made.end(name) == 0
        assert made.end("server") == 0
        logs = [*made.server.logs.iterdir(), *tmp_path.glob("*/*.agent/logs/*")]
        assert len(logs) == 3 + 2 * 2
        for log in logs:  # no text of a record is in any of them
            assert "pain" not in log.read_text()


def hostile_bundle(canary: Path) -> bytes:
    """What a malicious coordinator sends along: code that shadows what a site has installed."""
    evil = f"open({str(canary)!r}, 'a').write(__name__)\n"
    files = {
        "pyproject.toml": BUNDLE.decode().replace("cloister.none", "cloister.client.app"),
        "cloister/__init__.py": evil,
        "cloister/client/__init__.py": evil,
        "cloister/client/app.py": evil
        + "from flwr.clientapp import ClientApp\napp = ClientApp()\n",
        "torch.py": evil,
        "sitecustomize.py": evil,
    }
    manifest = "\n".join(
        f"{name},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text.encode())}"
        for name, text in files.items()
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        for name, text in {**files, ".info/CONTENT": manifest}.items():
            bundle.writestr(name, text)
    return content.getvalue()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two running sites whose policy demands noise; studies share their budgets."""
    with federation(tmp_path_factory.mktemp("live"), epsilon="40.0", noise=0.8) as made:
        started(made)
        yield made


def test_code_that_comes_along_is_never_run(live: Federation, tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "empty_bundle", lambda: hostile_bundle(canary))
        live.submit("hostile", 1)
    assert live.wait_ended("hostile") is RunStatus.FINISHED
    assert not canary.exists()
    for file in live.sites.values():
        folder = AgentFolder.of(file)
        assert folder.activity()["bundles"] >= 1  # seen, dropped; again where Flower sends it again
        assert "dropped unread" in (folder.logs / "agent.log").read_text()
        assert not list(folder.path.glob("flwr/apps/*"))


def test_a_plan_with_less_noise_than_the_policy_allows_is_made_stricter(live: Federation) -> None:
    live.submit("lax", 1, "privacy.noise_multiplier=0.3", "study.name=lax")
    assert live.wait_ended("lax") is RunStatus.FINISHED
    for file in live.sites.values():
        charged = [entry.fields for entry in LedgerFile(file.ledger).entries()]
        events_of = [entry["event"] for entry in charged if entry["kind"] == "reserve"]
        assert all(event["noise_multiplier"] >= 0.8 for event in events_of)


def test_a_study_that_no_policy_accepts_ends_with_every_reason_at_the_site(
    live: Federation,
) -> None:
    place = live.submit("refused", 1, "lora.r=2", "privacy.enabled=false", "study.name=refused")
    assert live.wait_ended("refused") is RunStatus.FAILED
    run = read_run(place)
    assert run.exit_code == 8
    told = [event for _, event in events(place) if event["what"] == "failed"]
    assert "0 of 2 sites take part" in told[0]["text"]
    assert "east (it says: refused), west (it says: refused)" in told[0]["text"]
    refused = [event for _, event in events(place) if event["what"] == "refused"]
    assert [(event["round"], event["site"]) for event in refused] == [(0, "east"), (0, "west")]
    for file in live.sites.values():
        why = AgentFolder.of(file).refusals()[-1]
        assert why["kind"] == "RefusedError"
        assert "noise" in why["why"]
        # Nothing of it is in what the coordinator has.
        assert why["why"] not in (place / "events.jsonl").read_text()


def test_a_revoked_site_is_refused_at_once_and_the_others_go_on(live: Federation) -> None:
    place = live.submit(
        "revoked",
        3,
        "federation.min_sites=1",
        "study.name=revoked",
        "federation.absent_timeout=2.0",
    )
    live.wait_closed("revoked", 1)
    live.revoke("west")
    assert live.wait_ended("revoked") is RunStatus.FINISHED
    rows = RunDirectory(place).metrics()
    assert set(rows[-1]["received"]) == {"east"}
    folder = AgentFolder.of(live.sites["west"])
    wait_for("the reason", lambda: "membership: not known" in str(folder.connection()))
    check_history(live, "revoked")


@pytest.mark.parametrize(
    "points", [["charged", "released"]], ids=["after the charge, after the release"]
)
def test_an_agent_that_dies_in_a_round_spends_it_once(tmp_path: Path, points: list[str]) -> None:
    """One site dies at a named point of each round, the other lives; every round is closed."""
    with federation(tmp_path, epsilon="40.0", noise=0.8) as made:
        made.start("server")
        made.start("east")
        made.start("west", dying_at=points)
        place = made.submit("dying", len(points) + 1, "federation.min_sites=1")
        assert made.wait_ended("dying", 600.0) is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == list(range(1, len(points) + 2))
        counts = check_history(made, "dying")
        # Only a round that was cut off between charge and release is spent for nothing.
        cut = len({"charged", "training", "trained"} & set(points))
        assert counts["reserved"] - counts["released"] == cut
        assert counts["counted"] == counts["released"]
        assert len(list((tmp_path / "west").glob("died-*"))) == len(points)


@pytest.mark.nightly
def test_an_agent_that_hangs_is_ended_and_goes_on_with_the_next_round(tmp_path: Path) -> None:
    with federation(tmp_path, epsilon="40.0", noise=0.8) as made:
        path = made.sites["west"].path
        # Training takes a second; on a loaded machine less than this.
        text = path.read_text().replace("[site]", "[site]\nmax_round_seconds = 30", 1)
        path.write_text(text)
        for who in ("server", "east"):
            made.start(who)
        made.start("west", dying_at=["hung"])
        place = made.submit("hanging", 3, "federation.min_sites=1")
        assert made.wait_ended("hanging", 600.0) is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert ["west" in row["received"] for row in rows] == [False, True, True]
        counts = check_history(made, "hanging")
        assert counts["reserved"] - counts["released"] == 1
        log = AgentFolder.of(made.sites["west"]).logs / "agent.log"
        assert "longer than site.max_round_seconds" in log.read_text()


def test_a_run_whose_superlink_and_executor_are_killed_equals_an_unbroken_one(
    tmp_path: Path,
) -> None:
    """Without noise, bit for bit: a resumed run asks again, and sites send the same bytes."""
    with federation(tmp_path) as made:
        for file in made.sites.values():
            text = file.path.read_text().replace("max_grad_norm = 8.0", "max_grad_norm = inf")
            file.path.write_text(text)
        started(made)
        plain = ("privacy.enabled=false", "strategy.name=fedadam")
        made.submit("unbroken", 4, *plain, "study.name=one")
        assert made.wait_ended("unbroken") is RunStatus.FINISHED
        made.submit("broken", 4, *plain, "study.name=two")
        for number, victim in ((1, "superlink"), (2, "executor")):
            made.wait_closed("broken", number)
            assert made.kill("server", victim)
        assert made.wait_ended("broken", 600.0) is RunStatus.FINISHED
        told = [event["what"] for _, event in events(made.server.run("broken"))]
        assert told.count("resumed") >= 1
        ends = [
            (made.server.run(name) / "adapter" / "adapter_model.safetensors").read_bytes()
            for name in ("unbroken", "broken")
        ]
        assert ends[0] == ends[1]
        check_history(made, "unbroken", "broken")
