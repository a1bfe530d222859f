"""A federation of real processes on loopback: a coordinator, its sites, and their files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.client.site_file import SiteFile, read_site
from cloister.deployment.coordinator.deployed import resolved_recipe
from cloister.deployment.coordinator.deployed_votes import resolved_votes
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.journal import (
    ENDED,
    Run,
    RunStatus,
    events,
    read_run,
    write_run,
)
from cloister.deployment.coordinator.members import (
    approved,
    changing,
    connecting,
    invited,
    read_members,
    revoked,
)
from cloister.deployment.coordinator.service import submit
from cloister.deployment.coordinator.status import read_service
from cloister.deployment.enrolment.coordinator_key import load_coordinator_key, public_key_of
from cloister.deployment.enrolment.documents import Approval, Invite, write_invite, write_welcome
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.joining import SiteMembership, take_invite, take_welcome
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.models.base import weights_sha256
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from tests.support.approvals import standing
from tests.support.models import tiny_bert, tiny_llama
from tests.support.ports import free_port
from tests.support.studies import NOTES, write_notes

SITE = """
[site]
name = "{name}"
data = "records.jsonl"
public_records = 40
ledger = "records.ledger"
model = "{base}"

[records]
task = "sequence-classification"
labels = {labels}

[budget]
epsilon = {epsilon}
delta = 2e-5

[privacy]
min_noise_multiplier = {noise}
max_grad_norm = 8.0

[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{sha256}"]
max_rounds = 1000
votes = true
"""
RECIPE = """
[study]
name = "small"
[model]
base = "{base}"
sha256 = "{sha256}"
[task]
max_length = 16
labels = {labels}
[data]
test = "{test}"
[lora]
train = "both"
top_layers = 0
[training]
expected_batch_size = 10
mode = "local-steps"
local_steps = 2
learning_rate = 0.1
schedule = "constant"
[privacy]
max_grad_norm = 1.0
[federation]
num_rounds = {rounds}
absent_timeout = 20.0
round_timeout = 600.0
[tracking]
tensorboard = false
"""
VOTES = """
[study]
name = "votes"
[model]
base = "{base}"
[task]
max_length = 16
labels = {labels}
[privacy]
noise_multiplier = 2.0
{lines}
[federation]
absent_timeout = 20.0
round_timeout = 600.0
[votes]
public = "{public}"
candidates = 6
rounds = {rounds}
generator = "{generator}"
most_tokens = 4
"""
# Each with a `sitecustomize`: a clock that is an hour ahead; sites that wait less.
SKEWED, HURRIED = (str(Path(__file__).parent / name) for name in ("skewed", "hurried"))
# Seconds that anything here may take before a test gives up: two cores beside eight busy processes.
PATIENCE = 900.0


def wait_for(what: str, ready: Callable[[], object], patience: float = PATIENCE) -> None:
    """Polls until a condition is true; fails if it does not become true in time."""
    deadline = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for: {what}"
        time.sleep(0.1)


@dataclass
class Federation:
    """Folders and processes of a coordinator and its sites."""

    root: Path
    server: ServerFolder
    sites: dict[str, SiteFile]
    base: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, who: str, dying_at: Sequence[str] = (), *, fast_clock: bool = False) -> None:
        """Starts the coordinator ("server") or a site as its operator would.

        Args:
            who: "server", or a site's name.
            dying_at: Points of a round at each of which the site's agent dies once
                (`tests.support.dying_agent`).
            fast_clock: Whether its processes' clocks are an hour ahead.
        """
        if who == "server":
            command = ["cloister", "server", "start", str(self.server.path)]
        elif dying_at:
            path = str(self.sites[who].path)
            command = ["tests.support.dying_agent", "cloister-service", path, *dying_at]
        else:
            command = ["cloister", "site", "start", str(self.sites[who].path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        places = [SKEWED if fast_clock else HURRIED, os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(places)
        with (self.root / f"{who}.out").open("ab") as out:
            self.processes[who] = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def end(self, who: str, number: int = signal.SIGTERM) -> int:
        """Ends a service and returns its exit code."""
        process = self.processes.pop(who)
        process.send_signal(number)
        return process.wait(PATIENCE)

    def end_all(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(PATIENCE)
        self.processes.clear()

    def child(self, who: str, name: str) -> int | None:
        """Process number of a service's child."""
        service = (
            read_service(self.server)
            if who == "server"
            else AgentFolder.of(self.sites[who]).running()
        )
        found = (service or {"children": {}})["children"].get(name, {}).get("pid")
        return int(found) if found else None

    def kill(self, who: str, name: str) -> bool:
        """Kills a service's child without a word; whether there was one."""
        pid = self.child(who, name)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def recipe(self, rounds: int, *assignments: str) -> Recipe:
        """The small study, as the coordinator resolves it."""
        path = self.root / "study.toml"
        path.write_text(
            RECIPE.format(
                base=self.base,
                labels=json.dumps(sorted(NOTES)),
                rounds=rounds,
                sha256=weights_sha256(self.base),
                test=self.root / "test.jsonl",
            )
        )
        members = connecting(read_members(self.server.members), datetime.now(UTC))
        return resolved_recipe(path, list(assignments), members)

    def submit(self, name: str, rounds: int, *assignments: str) -> Path:
        """Starts a run once the coordinator listens; returns its folder."""
        return self.submit_recipe(name, self.recipe(rounds, *assignments))

    def votes(self, rounds: int, *lines: str) -> Recipe:
        """A study of votes at the sites, as the coordinator resolves it; `lines`: of [privacy]."""
        path, public = self.root / "votes.toml", self.root / "public.jsonl"
        rows = [{"text": text, "label": label} for label in NOTES for text in NOTES[label][:2]]
        public.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tiny_llama(self.root / "generator")
        path.write_text(
            VOTES.format(
                base=self.base,
                labels=json.dumps(sorted(NOTES)),
                rounds=rounds,
                public=public,
                generator=self.root / "generator",
                lines="\n".join(lines),
            )
        )
        members = connecting(read_members(self.server.members), datetime.now(UTC))
        return resolved_votes(path, members)

    def submit_recipe(self, name: str, recipe: Recipe) -> Path:
        """Starts a run of a resolved study; returns its folder."""
        place = self.server.run(name)
        RunDirectory.create(place, recipe)
        members = connecting(read_members(self.server.members), datetime.now(UTC))
        run = Run(name=name, standing=RunStatus.SUBMITTED, flower_run=0, sites=tuple(members))
        write_run(place, run)
        wait_for("the SuperLink", lambda: _submitted(self.server, run))
        return place

    def standing(self, name: str) -> RunStatus:
        return read_run(self.server.run(name)).standing

    def wait_closed(self, name: str, rounds: int) -> None:
        """Waits until this number of rounds is closed."""
        run = RunDirectory(self.server.run(name))

        def closed() -> bool:
            ended = self.standing(name) in ENDED
            enough = len(run.metrics()) >= rounds
            assert enough or not ended, read_run(self.server.run(name)).error
            return enough

        wait_for(f"round {rounds} of {name}", closed)

    def wait_answered(self, name: str, number: int) -> None:
        """Waits until a site has answered a round."""

        def answered() -> bool:
            told = (event for _, event in events(self.server.run(name)))
            return any(row["what"] == "answered" and row["round"] == number for row in told)

        wait_for(f"an answer to round {number} of {name}", answered)

    def wait_ended(self, name: str, patience: float = PATIENCE) -> RunStatus:
        wait_for(f"the end of {name}", lambda: self.standing(name) in ENDED, patience)
        return self.standing(name)

    def revoke(self, site: str) -> None:
        with changing(self.server.members) as write:
            write(revoked(read_members(self.server.members), site))


def _submitted(server: ServerFolder, run: Run) -> bool:
    from cloister.errors import NetworkError

    try:
        submit(server, run)
    except NetworkError:
        return False
    return True


@contextmanager
def federation(
    root: Path,
    names: tuple[str, ...] = ("east", "west"),
    *,
    epsilon: str = "inf",
    noise: float = 0.0,
    base: Path | None = None,
    approves: bool = True,
) -> Iterator[Federation]:
    """Makes a coordinator and approved sites; ends every process at the end.

    `approves`: whether the sites have a standing approval for its study.
    """
    root.mkdir(parents=True, exist_ok=True)
    base = base or tiny_bert(root / "base")
    write_notes(root / "test.jsonl", 30, seed=1)
    port, now = free_port(), datetime.now(UTC)
    server = ServerFolder.create(
        root / "coordinator",
        ServerConfig(name="desk", address=f"localhost:{port}", listen=f"127.0.0.1:{port}"),
        now,
    )
    sites = {}
    for index, name in enumerate(names):
        folder = root / name
        folder.mkdir(exist_ok=True)
        write_notes(folder / "records.jsonl", 40, seed=10 + index)
        text = SITE.format(
            name=name,
            base=base,
            sha256=weights_sha256(base),
            epsilon=epsilon,
            noise=noise,
            labels=json.dumps(sorted(NOTES)),
        )
        if approves:
            text += standing(weights_sha256(base), shared_noise=True, votes=True)
        (folder / "site.toml").write_text(text)
        sites[name] = read_site(folder / "site.toml")
        begin_ledger(sites[name])
        admit(server, sites[name], now)
    made = Federation(root, server, sites, base)
    try:
        yield made
    finally:
        made.end_all()


def admit(server: ServerFolder, site: SiteFile, now: datetime) -> None:
    """Exchanges the three enrolment documents between a coordinator and a site."""
    folder, authority, name = site.path.parent, server.authority, site.site.name
    with changing(server.members) as write:
        members = invited(read_members(server.members), name, now)
        invite = Invite(
            coordinator=server.config.name,
            site=name,
            address=server.config.address,
            authority=authority.pem.decode(),
            token=members[name].token,
            expires=members[name].expires,
        )
        write_invite(folder / "invite.json", invite, authority)
        request = take_invite(site, folder / "invite.json", invite.fingerprint, now, False)
        members = approved(members, request, now)
        welcome = Approval(
            coordinator=server.config.name,
            site=name,
            request=request.fingerprint,
            expires=members[name].expires,
            coordinator_key=public_key_of(load_coordinator_key(server.key)),
        )
        write_welcome(folder / "welcome.json", welcome, authority)
        write(members)
    take_welcome(site, folder / "welcome.json", now)
    assert SiteMembership.of(site).is_welcome()


def check_history(made: Federation, *names: str) -> dict[str, int]:
    """Checks the files of a federation after any faults; returns counts.

    - no release without a durable reservation before it (the ledger's chain, signatures and order);
    - at most one distinct release per (study, round, site);
    - spent ≥ released, and within the cap at every prefix (`verify` recomputes both);
    - everything that the coordinator counted is a release of that site, byte for byte;
    - every run ended, or can be resumed.
    """
    released: dict[str, dict[tuple[str, int], str]] = {}
    counts = {"reserved": 0, "released": 0, "counted": 0}
    for site, file in made.sites.items():
        entries = LedgerFile(file.ledger).entries()
        history = verify(entries, str(file.ledger)).history
        out: dict[tuple[str, int], str] = {}
        reserved: dict[int, dict[str, Any]] = {}
        for entry in entries:
            said = entry.fields
            if said["kind"] == "reserve":
                assert (said["study"], said["round"]) not in [
                    (r["study"], r["round"]) for r in reserved.values()
                ]
                reserved[said["seq"]] = said
            elif said["kind"] == "release":
                about = reserved[said["reservation"]]
                place = (about["study"], about["round"])
                assert place not in out, f"{site} released {place} twice"
                out[place] = said["sha256"]
        assert len(history.released) == len(out) <= len(reserved)
        released[site] = out
        counts["reserved"] += len(reserved)
        counts["released"] += len(out)
    for name in names:
        place = made.server.run(name)
        study = RunDirectory(place)
        digest = study.recipe().digest()
        rounds = [row["round"] for row in study.metrics()]
        assert rounds == sorted(set(rounds)), f"{name}: rounds {rounds}"
        for row in study.metrics():
            for site, (sha256, _) in row["received"].items():
                assert released[site][digest, row["round"]] == sha256
                counts["counted"] += 1
        assert made.standing(name) in (*ENDED, RunStatus.INTERRUPTED)
    return counts
