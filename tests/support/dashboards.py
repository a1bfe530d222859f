"""Writes a coordinator's and a site's folder as after a study, without training anything."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloister.client.policy_file import EXAMPLE
from cloister.client.site_file import SiteFile, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.journal import Run, RunStatus, write_run
from cloister.deployment.coordinator.members import Member
from cloister.deployment.coordinator.members import MemberStatus as Membership
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from tests.support.ledgers import small_plan

HOSTILE = "<script>alert(1)</script>"
NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
SITES = ("county-general", "riverside", "st-marys")
# What a site did with a round, where it did not simply answer.
ODD = {
    (4, "riverside"): "late",
    (7, "county-general"): "lost",
    (9, "riverside"): "refused",
    (11, "st-marys"): "retired",
    (12, "st-marys"): "retired",
}


def coordinator_folder(
    path: Path,
    *,
    sites: tuple[str, ...] = SITES,
    rounds: int = 13,
    standing: RunStatus = RunStatus.STOPPED,
) -> ServerFolder:
    """A coordinator with members and two runs: one of many rounds, one that finished."""
    config = ServerConfig(name="north-region", address="fed.example.org:9443")
    folder = ServerFolder.create(path, config, NOW)
    members = {
        site: Member(
            standing=Membership.APPROVED,
            token=f"t{number}",
            node_key=f"n{number}",
            ledger_key=f"{number:064x}",
            public_records=1300,
            expires=(NOW + timedelta(days=300 - 40 * number)).isoformat(),
        )
        for number, site in enumerate(sites)
    }
    members["hill-clinic"] = Member(
        standing=Membership.INVITED, token="t", expires=(NOW + timedelta(days=21)).isoformat()
    )
    documents = {site: asdict(member) for site, member in members.items()}
    folder.members.write_text(json.dumps(documents))
    seen = {
        site: {
            "bytes": 340_000 + 1000 * number,
            "seen": (NOW - timedelta(seconds=12 * number)).isoformat(),
        }
        for number, site in enumerate(sites)
    }
    (folder.state / "seen.json").write_text(json.dumps(seen))
    write_journal(folder, "triage-2", sites, rounds, 20, standing)
    write_journal(folder, "pilot", sites, 3, 3, RunStatus.FINISHED)
    return folder


def write_journal(
    folder: ServerFolder,
    name: str,
    sites: tuple[str, ...],
    rounds: int,
    num_rounds: int,
    standing: RunStatus,
) -> None:
    """A run's folder; its last round is still open unless it is finished."""
    recipe = parse_recipe(f"[federation]\nnum_rounds = {num_rounds}\n")
    run = RunDirectory.create(folder.run(name), recipe)
    write_run(run.path, Run(name=name, standing=standing, flower_run=1, sites=sites))
    clock = NOW - timedelta(minutes=40 if num_rounds > rounds else 4000)
    lines: list[dict[str, Any]] = []

    def note(what: str, after: float, **fields: Any) -> None:
        at = (clock + timedelta(seconds=after)).isoformat(timespec="milliseconds")
        lines.append({"time": at, "what": what, **fields})

    note("started", 0, text="Flower's run 1")
    retired: list[str] = []
    for number in range(1, rounds + 1):
        is_open = standing is not RunStatus.FINISHED and number == rounds
        odd = {s: what for s in sites if (what := ODD.get((number, s))) and rounds > 3}
        answered = []
        for index, site in enumerate(sites):
            note("asked", 1, round=number, site=site)
            took = 20 + 9 * ((number * 7 + index * 5) % 6)
            what = odd.get(site, "answered")
            if what in ("lost", "late"):
                note(what, 120, round=number, site=site)
            elif not (is_open and index == 0):
                note("answered", took, round=number, site=site)
            if what == "answered":
                answered.append(site)
        clock += timedelta(seconds=130)
        if is_open:
            break
        refused = {
            s: "the update has norm 71.2; at most 50 is allowed" for s in odd if odd[s] == "refused"
        }
        for site, why in refused.items():
            note("refused", 0, round=number, site=site, text=why)
        retired += [s for s in odd if odd[s] == "retired" and s not in retired]
        for site in retired:
            note("retired", 0, round=number, site=site)
        score = 0.74 - 0.55 * 0.78**number
        run.append_metrics(
            {
                "round": number,
                "test": {"accuracy": score, "macro_f1": score - 0.05, "loss": 3 - score},
                "epsilon": dict.fromkeys(answered, 4.2),
                "received": {site: ["ab" * 32, "cd" * 32] for site in answered},
                "bytes_up": 28_031 * len(answered),
                "bytes_down": 28_031 * len(sites),
                "seconds": 60.0 + number,
                "missing": [s for s in sites if s not in answered and s not in retired],
                "retired": list(retired),
                "refused": refused,
                "update_norm": 1.0,
            }
        )
        note("closed", 0, round=number, seconds=60.0, bytes=1)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.path / "events.jsonl").write_text(text)
    (run.path / "checkpoint").mkdir()
    (run.path / "checkpoint" / "latest.json").write_text("{}")


def site_folder(path: Path, name: str = "st-marys", *, rounds: int = 5) -> SiteFile:
    """A site with two studies in its ledger, refusals and an agent that waits."""
    path.mkdir(parents=True)
    quoted = json.dumps(name)
    head = (
        f'[site]\nname = {quoted}\ndata = "r.jsonl"\npublic_records = 1300\nledger = "s.ledger"\n'
    )
    (path / "site.toml").write_text(head + EXAMPLE)
    file = read_site(path / "site.toml")
    ticks = iter(range(10_000))

    def clock() -> str:
        return (NOW - timedelta(days=2) + timedelta(minutes=19 * next(ticks))).isoformat()

    privacy = file.policy.privacy
    plan = replace(
        small_plan(0.9, rounds),
        public_records=1300,
        expected_batch_size=64,
        unit=privacy.unit,
        delta=privacy.max_delta,
    )
    ledger = Ledger.create(file.ledger, file.policy.lifetime, privacy.unit, clock=clock)
    for study in ("a7c1" * 16, "5e09" * 16):
        for number in range(1, rounds + 1):
            charge = Charge(study=study, round=number, plan=plan, request=f"adapter {number}")
            granted = ledger.reserve(charge)
            assert isinstance(granted, Reservation)
            if (study[0], number) != ("5", 2):
                granted.release(study[:4].encode() + bytes([number]) * 28_027)
    agent = AgentFolder.of(file)
    agent.own.mkdir(parents=True)
    doing = {"doing": "waiting", "answered": 2 * rounds - 1, "bundles": 1, "time": clock()}
    (agent.own / "agent.json").write_text(json.dumps(doing))
    why = "its base model is not accepted here: SHA-256 9f2c…", f"{HOSTILE} is no task of ours"
    rows = [
        {"time": clock(), "study": "9b" * 32, "round": number, "kind": "RefusedError", "why": text}
        for number, text in enumerate(why, 1)
    ]
    (agent.own / "refusals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def add_evaluations(folder: ServerFolder, run: str, label: str = "cough") -> None:
    """Writes the estimates of three private evaluations: the noise hides the first one's score."""

    def estimate(value: float | None, held_out: float, population: float | None) -> dict[str, Any]:
        def around(width: float) -> list[float]:
            center = 0.5 if value is None else value
            return [max(0.0, center - width), min(1.0, center + width)]

        wide = None if population is None else around(population)
        return {"value": value, "held_out": around(held_out), "population": wide}

    for number, value in ((4, None), (8, 0.62), (12, 0.71)):
        width = 0.5 if value is None else 0.05
        classes = {label: {"recall": estimate(value, 3 * width, None)}}
        loss = {"value": 0.8, "held_out": [0.7, None], "population": None}
        scores = {"accuracy": estimate(value, width, 1.4 * width), "loss": loss}
        row = {"round": number, "sites": ["riverside", "st-marys"]}
        RunDirectory(folder.run(run)).append_evaluation(
            {**row, "scores": scores, "classes": classes}
        )
