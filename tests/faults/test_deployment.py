"""A deployment of real processes on loopback: studies, strangers, and processes that are killed.

One federation goes through it all, in the order of the tests; each asks only of its own study.
Processes that load torch cost most, so a study meets several faults, one a round.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.client.site_file import read_site
from cloister.deployment.coordinator.journal import RunStatus, events, read_run
from cloister.deployment.coordinator.reply_size import BESIDE, WITHOUT_STUDY, Largest
from cloister.deployment.flower import control
from cloister.deployment.flower.control import BUNDLE
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.status import site_status
from cloister.export.synthetic_facts import read_facts
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.ledger.storage import LedgerFile
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.protocol.signed_questions import signed
from cloister.recipe import sent_document
from cloister.server.run_directory import RunDirectory
from tests.support.dying_agent import LATER, marker_of
from tests.support.federation import Federation, check_history, federation, wait_for
from tests.support.intruder import adapter_of, answers, intruder

SITES = ("east", "north", "west")
SHARED = [
    "privacy.noise=shared",
    "federation.absent_timeout=600.0",  # a slow site is not left out, and asked once
    "privacy.noise_multiplier=0.9",  # all sites run one plan: as much as the strictest wants
    "privacy.missing_sites=1",
    "privacy.colluding_sites=0",
    "training.mode=gradient-rounds",
    "training.local_steps=1",
]


def started(made: Federation, **points: str) -> None:
    """Starts all; `points`: where the agent of a site dies, or is held."""
    for who in ("server", *made.sites):
        made.start(who, dying_at=[points[who]] if who in points else ())


def know_each_other(made: Federation) -> None:
    """Each institution lists the others' keys, as these told it."""
    keys = {name: public_hex(load_key(key_file(site.ledger))) for name, site in made.sites.items()}
    for name, site in made.sites.items():
        partners = [key for other, key in keys.items() if other != name]
        text = site.path.read_text().replace(
            "max_rounds = 1000",
            f"max_rounds = 1000\nnoise_partners = {partners}\nmin_colluding = 0",
            1,  # of [accept]; the standing approval's comes later
        )
        site.path.write_text(text)
        made.sites[name] = read_site(site.path)


def processes(made: Federation) -> dict[str, int]:
    """Every process of a federation, as `server/gate`; a service itself as `server`."""
    found = {who: process.pid for who, process in made.processes.items()}
    for who in made.processes:
        own = ("superlink", "gate", "executor") if who == "server" else ("supernode", "agent")
        found |= {f"{who}/{name}": pid for name in own if (pid := made.child(who, name))}
    return found


def holding_torch(made: Federation) -> set[str]:
    """Which processes have loaded torch; one that has just ended has not."""
    found = set()
    for who, pid in processes(made).items():
        with suppress(FileNotFoundError, ProcessLookupError):
            if "/torch/" in Path(f"/proc/{pid}/maps").read_text():
                found.add(who)
    return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three running sites whose policy demands noise; studies share their budgets."""
    root = tmp_path_factory.mktemp("live")
    with federation(root, SITES, epsilon="60.0", noise=0.8) as made:
        know_each_other(made)
        marker_of(root / "west", "charged").write_text(LATER)
        marker_of(root / "north", "held").write_text(LATER)
        started(made, west="charged", north="held")
        yield made


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the code that comes with the first study would write."""
    return tmp_path_factory.mktemp("hostile") / "executed"


@pytest.fixture(scope="module")
def first(live: Federation, canary: Path) -> Path:
    """The folder of a finished study of three rounds, by a hostile coordinator.

    It came with code, and with less noise than the sites' policies allow. Its superlink and its
    gate are killed after a round, its executor in the next one, which a site cannot answer yet.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "empty_bundle", lambda: hostile_bundle(canary))
        place = live.submit("first", 3, "privacy.noise_multiplier=0.3", "strategy.name=fedadam")
    live.wait_closed("first", 1)
    for victim in ("superlink", "gate"):
        assert live.kill("server", victim)
    live.wait_answered("first", 2)  # so that what is asked again was released
    assert live.kill("server", "executor")
    marker_of(live.root / "north", "held").unlink()
    assert live.wait_ended("first") is RunStatus.FINISHED, read_run(place).error
    return place


def test_a_study_over_a_network_whose_superlink_and_executor_are_killed_and_its_papers(
    live: Federation, first: Path
) -> None:
    """Three sites, three rounds: the contract with Flower's private parts, end to end.

    A round that is asked again is answered with the same bytes: `check_history` compares.
    """
    place = first
    rows = RunDirectory(place).metrics()
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert all(set(row["received"]) == set(SITES) for row in rows)
    assert check_history(live, "first") == {"reserved": 9, "released": 9, "counted": 9}
    training = {"server/executor", *(f"{site}/agent" for site in SITES)}
    # An agent may have started again, and loads it then.
    wait_for("torch where it is needed", lambda: training <= holding_torch(live))
    assert holding_torch(live) <= training
    assert (place / "adapter" / "adapter_config.json").is_file()
    card = (place / "adapter" / "README.md").read_text()
    for site in SITES:  # written from what each site signed, asked for at the end
        assert (place / "certificates" / f"{site}.certificate.json").is_file()
        assert f"| {site} |" in card
    assert "no certificate" not in card
    # Once each where the machine is quiet; who is slow is asked again, and answers the same.
    told = [(event["what"], event.get("round"), event.get("site")) for _, event in events(place)]
    for what, rounds in (("asked", (1, 2, 3)), ("answered", (1, 2, 3))):
        assert {row[1:] for row in told if row[0] == what} == {
            (n, s) for n in rounds for s in SITES
        }
    for what in ("preparing", "ready"):  # and once more where the run goes on
        assert {row[1:] for row in told if row[0] == what} >= {(0, s) for s in SITES}
    assert "resumed" in [row[0] for row in told]
    # The gate held replies to what this study's can be.
    flower_run = read_run(place).flower_run
    assert BESIDE < Largest(live.server.largest)(flower_run) < WITHOUT_STUDY
    for file in live.sites.values():
        # Its own notes, which outlive a restart of its agent: what the agent counts begins anew.
        facts = site_status(file)
        assert facts["study"]["study"] == RunDirectory(place).recipe().digest()
        (kept,) = facts["adapters"]
        weights = Path(kept["folder"]) / "adapter_model.safetensors"
        own = (place / "adapter" / "adapter_model.safetensors").read_bytes()
        assert weights.read_bytes() == own
        assert [row["round"] for row in facts["releases"]] == [1, 2, 3]
        assert facts["refusals"] == []


def test_a_round_that_somebody_pushes_into_the_superlink_is_refused_and_not_charged(
    live: Federation, first: Path
) -> None:
    """With the socket and the executor's secret, but without the coordinator's key."""
    ledgers = [file.ledger for file in live.sites.values()]
    before = [ledger.read_bytes() for ledger in ledgers]
    recipe, known = live.recipe(3, "study.name=pushed"), RunDirectory(first).recipe()
    document, study = sent_document(recipe), recipe.digest()
    stranger = Ed25519PrivateKey.generate()
    train = RoundRequest(study, 1, adapter_of(live))
    prepare = RoundRequest(study, 0, b"", Step.PREPARE)
    with intruder(live, document) as grid:
        nodes = list[int]()

        def there() -> bool:
            nodes[:] = grid.get_node_ids()
            return len(nodes) == len(SITES)

        wait_for("every site", there)
        for question in (
            prepare,
            train,
            signed(prepare, stranger, document, to="east", seen=""),
            signed(train, stranger, document, to="east", seen=""),
            replace(train, study=known.digest(), round=2),
        ):
            replies = answers(grid, nodes, question)
            assert len(replies) == len(SITES)
            for reply in replies:
                assert (reply.site, reply.status, reply.delta) == ("", Status.REFUSED, b"")
    assert [ledger.read_bytes() for ledger in ledgers] == before
    noted = [row["why"] for row in AgentFolder.of(live.sites["east"]).refusals()]
    unsigned, anothers = ("without a valid signature", "this site is east")
    # Once each, and again where a question was lost and asked once more.
    assert sum(unsigned in why for why in noted) >= 2
    assert sum(anothers in why for why in noted) >= 3
    assert all(unsigned in why or anothers in why for why in noted)
    # The coordinator's own rounds go on: in the tests below.


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
            bundle.writestr(zipfile.ZipInfo(name), text)  # the same bytes each time
    return content.getvalue()


def test_code_that_comes_along_is_never_run(live: Federation, first: Path, canary: Path) -> None:
    """Each agent notes it in its log, which goes on where an agent starts again."""
    assert not canary.exists()
    came = hashlib.sha256(hostile_bundle(canary)).hexdigest()
    for file in live.sites.values():
        folder = AgentFolder.of(file)
        told = (folder.logs / "agent.log").read_text().splitlines()
        assert any("dropped unread" in line and came in line for line in told)
        assert not list(folder.path.glob("flwr/apps/*"))


def test_a_plan_with_less_noise_than_the_policy_allows_is_made_stricter(
    live: Federation, first: Path
) -> None:
    study = RunDirectory(first).recipe().digest()
    for file in live.sites.values():
        charged = [entry.fields for entry in LedgerFile(file.ledger).entries()]
        own = [said for said in charged if said["kind"] == "reserve" and said["study"] == study]
        assert [said["event"]["noise_multiplier"] for said in own] == [0.8, 0.8, 0.8]


def test_masked_sums_go_on_in_a_new_epoch_after_an_agent_died_between_charge_and_release(
    live: Federation,
) -> None:
    """The agent comes back with new keys: the round that it missed is summed without it."""
    before = check_history(live)
    marker_of(live.root / "west", "charged").unlink()
    place = live.submit("shared", 2, *SHARED, "study.name=shared")
    assert live.wait_ended("shared") is RunStatus.FINISHED, read_run(place).error
    rows = RunDirectory(place).metrics()
    assert [row["round"] for row in rows] == [1, 2]
    assert set(rows[0]["received"]) == {"east", "north"}
    assert all(len(row["received"]) >= 2 for row in rows)
    assert all(row["update_norm"] > 0 for row in rows)
    after = check_history(live, "shared")
    reserved, released = (after[what] - before[what] for what in ("reserved", "released"))
    assert reserved - released == 1  # the round that was cut off is spent for nothing
    assert after["counted"] == released
    assert marker_of(live.root / "west", "charged").exists()
    # Nothing of one site's update is anywhere at the coordinator, but each site's certificate.
    kept = {
        file.name
        for file in place.rglob("*")
        if file.is_file() and file.parent.name != "certificates"
    }
    assert not any(name in file for file in kept for name in SITES)


def test_a_revoked_site_is_let_go_and_asked_no_more(live: Federation) -> None:
    live.revoke("west")
    folder = AgentFolder.of(live.sites["west"])
    wait_for("the reason", lambda: "membership: not known" in str(folder.connection()))


def test_a_study_that_no_policy_accepts_ends_with_every_reason_at_the_site(
    live: Federation,
) -> None:
    """Asked of the sites that are left."""
    left = [site for site in SITES if site != "west"]
    place = live.submit("refused", 1, "lora.r=2", "privacy.enabled=false", "study.name=refused")
    assert live.wait_ended("refused") is RunStatus.FAILED
    run = read_run(place)
    assert run.exit_code == 8
    told = [event for _, event in events(place) if event["what"] == "failed"]
    assert "0 of 2 sites take part" in told[0]["text"]
    assert ", ".join(f"{site} (it says: refused)" for site in left) in told[0]["text"]
    refused = [event for _, event in events(place) if event["what"] == "refused"]
    assert sorted((event["round"], event["site"]) for event in refused) == [(0, s) for s in left]
    for site in left:
        file = live.sites[site]
        why = AgentFolder.of(file).refusals()[-1]
        assert why["kind"] == "RefusedError"
        assert "noise" in why["why"]
        # Nothing of it is in what the coordinator has.
        assert why["why"] not in (place / "events.jsonl").read_text()


def test_services_end_when_they_are_told_and_no_log_holds_a_record(live: Federation) -> None:
    for who in tuple(live.processes):
        assert live.end(who) == 0, who
    logs = [*live.server.logs.iterdir(), *live.root.glob("*/*.agent/logs/*")]
    assert len(logs) == 3 + 2 * len(SITES)
    for log in logs:  # no text of a record is in any of them
        assert "pain" not in log.read_text()


@pytest.mark.nightly
def test_votes_go_on_whose_executor_is_killed_and_an_agent_dies_in_a_charged_round(
    tmp_path: Path,
) -> None:
    """Over the network: first with noise of each site's own, then under secure aggregation."""
    with federation(tmp_path, SITES, epsilon="60.0", noise=0.8) as live:
        know_each_other(live)
        marker_of(tmp_path / "west", "charged").write_text(LATER)
        started(live, west="charged")
        place = live.submit_recipe("votes", live.votes(3))
        live.wait_closed("votes", 1)
        kept = (place / "votes" / "votes-001.json").read_bytes()
        assert live.kill("server", "executor")
        assert live.wait_ended("votes") is RunStatus.FINISHED, read_run(place).error
        assert (place / "votes" / "votes-001.json").read_bytes() == kept
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == [1, 2, 3]
        assert all(set(row["received"]) == set(SITES) for row in rows)
        assert check_history(live, "votes") == {"reserved": 9, "released": 9, "counted": 9}
        facts = read_facts(place / "records" / "synthetic.jsonl")
        assert facts is not None
        assert facts.voted == dict.fromkeys(SITES, 3)
        assert facts.largest is not None
        for site in SITES:
            assert (place / "certificates" / f"{site}.certificate.json").is_file()
        before = check_history(live)
        marker_of(tmp_path / "west", "charged").unlink()
        shared = ('noise = "shared"', "missing_sites = 1", "colluding_sites = 0")
        place = live.submit_recipe("summed", live.votes(2, *shared))
        assert live.wait_ended("summed") is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert set(rows[0]["received"]) == {"east", "north"}
        after = check_history(live, "summed")
        reserved, released = (after[what] - before[what] for what in ("reserved", "released"))
        assert reserved - released == 1  # the round that was cut off is spent for nothing
        kept = json.loads((place / "votes" / "votes-001.json").read_text())
        assert kept["sites"] == 2


@pytest.mark.nightly
def test_a_run_goes_on_whose_superlink_and_executor_are_killed_and_a_site_revoked(
    tmp_path: Path,
) -> None:
    """In the same round: the answers of those who are left will do."""
    with federation(tmp_path, SITES, epsilon="60.0", noise=0.8) as live:
        started(live)
        _killed_and_revoked(live)


def _killed_and_revoked(live: Federation) -> None:
    place = live.submit(
        "killed",
        4,
        "strategy.name=fedadam",
        "federation.min_sites=1",
        "federation.absent_timeout=2.0",
        "study.name=killed",
    )
    live.wait_closed("killed", 1)
    assert live.kill("server", "superlink")
    live.wait_closed("killed", 2)
    assert live.kill("server", "executor")
    live.revoke("west")  # the round under way may hold its answer, the last does not
    assert live.wait_ended("killed") is RunStatus.FINISHED, read_run(place).error
    rows = RunDirectory(place).metrics()
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert "resumed" in [event["what"] for _, event in events(place)]
    assert check_history(live, "killed")["counted"] >= 4
    assert "west" not in rows[-1]["received"]
    assert "east" in rows[-1]["received"]
    folder = AgentFolder.of(live.sites["west"])
    wait_for("the reason", lambda: "membership: not known" in str(folder.connection()))


@pytest.mark.nightly
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
        assert made.wait_ended("dying") is RunStatus.FINISHED, read_run(place).error
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
        text = path.read_text().replace("[site]", "[site]\nmax_round_seconds = 60", 1)
        path.write_text(text)
        for who in ("server", "east"):
            made.start(who)
        made.start("west", dying_at=["hung"])
        place = made.submit("hanging", 3, "federation.min_sites=1")
        assert made.wait_ended("hanging") is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert ["west" in row["received"] for row in rows] == [False, True, True]
        counts = check_history(made, "hanging")
        assert counts["reserved"] - counts["released"] == 1
        log = AgentFolder.of(made.sites["west"]).logs / "agent.log"
        assert "longer than site.max_round_seconds" in log.read_text()


@pytest.mark.nightly
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
        assert made.wait_ended("broken") is RunStatus.FINISHED
        told = [event["what"] for _, event in events(made.server.run("broken"))]
        assert told.count("resumed") >= 1
        ends = [
            (made.server.run(name) / "adapter" / "adapter_model.safetensors").read_bytes()
            for name in ("unbroken", "broken")
        ]
        assert ends[0] == ends[1]
        check_history(made, "unbroken", "broken")
