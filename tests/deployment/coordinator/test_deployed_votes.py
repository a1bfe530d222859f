"""A deployed study of votes in one process: from its file to records, certificates and a bundle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from cloister.cli.main import run as cli
from cloister.client import voting
from cloister.client.admission import Admitted
from cloister.client.app import make_client_app
from cloister.client.secure import EpochKeys
from cloister.client.site_file import read_site
from cloister.deployment.coordinator.deployed_votes import DeployedVotes, resolved_votes
from cloister.deployment.coordinator.journal import Run, RunStatus, events, write_run
from cloister.deployment.coordinator.members import Member, MemberStatus
from cloister.deployment.coordinator.ports import Connected, Journal
from cloister.deployment.coordinator.publication import keep_publication, kept_publication
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.opened_site import open_for_study
from cloister.deployment.site.records import read_records
from cloister.errors import (
    BadFileError,
    CloisterError,
    DataError,
    RecipeError,
    RefusedError,
    UsageError,
)
from cloister.evidence.bundle import Bundle, write_bundle
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.croissant import Publication
from cloister.export.synthetic_card import promise_words
from cloister.export.synthetic_facts import read_facts
from cloister.ledger.certificate import certify
from cloister.ledger.ledger import key_file, now
from cloister.ledger.signing import load_key, public_hex
from cloister.ledger.storage import LedgerFile
from cloister.models.base import weights_sha256
from cloister.protocol.signed_questions import TrustedCoordinator
from cloister.recipe import Recipe, sent_document
from cloister.server.run_directory import RunDirectory
from cloister.simulation.certificates import received_in
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from tests.support.approvals import standing
from tests.support.models import tiny_bert, tiny_llama
from tests.support.studies import NOTES, write_notes
from tests.tools.test_independent_verifier import verdicts

NAMES = ("east", "north", "west")
SITE = """
[site]
name = "{name}"
data = "records.jsonl"
public_records = 40
ledger = "records.ledger"
model = "{model}"
[records]
task = "sequence-classification"
labels = {labels}
[budget]
epsilon = 40.0
delta = 4e-5
[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{base}"]
votes = true
noise_partners = {partners}
min_colluding = 0
"""
STUDY = """
[study]
name = "reviews"
[model]
base = "{model}"
[task]
labels = {labels}
max_length = 16
[privacy]
noise_multiplier = 2.0
{privacy}
[federation]
absent_timeout = 0.01
[votes]
public = "{public}"
candidates = 6
{votes}
"""


class Here(Connected):
    """Members whose nodes are this process's."""

    def nodes(self, grid: Grid) -> dict[int, str]:
        return {SERVER_NODE + 1 + at: name for at, name in enumerate(NAMES)}

    def since(self, grid: Grid) -> dict[int, str]:
        return {}


@dataclass
class Deployed:
    """A coordinator's run and its sites, all here."""

    folder: Path
    recipe: Recipe
    members: Mapping[str, Member]
    admitted: dict[str, Admitted]
    key: Ed25519PrivateKey

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.folder / "run")

    def open(self) -> DeployedVotes:
        """As the executor opens the run, also after a crash."""
        study = DeployedVotes.open(
            self.run, self.members, lambda: self.members, self.key, self.folder / "heads"
        )
        asked = study.server.participants
        here = Here(**{f.name: getattr(asked, f.name) for f in fields(asked)})
        study.server = replace(study.server, participants=here)
        return study

    def execute(self) -> None:
        self.open().execute(LocalGrid(self._app(), len(NAMES)))

    def _app(self) -> ClientApp:
        key = public_hex(self.key)
        apps = [
            make_client_app(
                lambda _, name=name: self.admitted[name],
                lambda name=name: TrustedCoordinator(key, name),
            )
            for name in NAMES
        ]
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            context.run_config["recipe"] = sent_document(self.recipe)
            return apps[int(str(context.node_config["partition-id"]))](message, context)

        return app

    def charges(self, site: str) -> list[tuple[int, str]]:
        entries = LedgerFile(self.folder / site / "records.ledger").entries()
        rows = [one.fields for one in entries if one.fields["kind"] == "reserve"]
        return [(row["round"], row["release_kind"]) for row in rows]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    tiny_bert(place / "base")
    tiny_llama(place / "generator")
    rows = [{"text": text, "label": label} for label in NOTES for text in NOTES[label][:2]]
    (place / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def study_file(folder: Path, models: Path, *, votes: str = "", privacy: str = "") -> Path:
    path = folder / "study.toml"
    path.write_text(
        STUDY.format(
            model=models / "base",
            labels=json.dumps(sorted(NOTES)),
            public=models / "public.jsonl",
            votes=votes,
            privacy=privacy,
        )
    )
    return path


def member(key: str = "ab" * 32) -> Member:
    return Member(
        standing=MemberStatus.APPROVED,
        token="",
        expires="2099-01-01T00:00:00+00:00",
        node_key="",
        ledger_key=key,
        public_records=40,
    )


def deployed(folder: Path, models: Path, *, votes: str = "", privacy: str = "") -> Deployed:
    base, keys = weights_sha256(models / "base"), {}
    shared = "shared" in privacy
    for at, name in enumerate(NAMES):
        place = folder / name
        place.mkdir()
        write_notes(place / "records.jsonl", 40, seed=10 + at)
        settings: dict[str, Any] = {
            "name": name,
            "base": base,
            "model": models / "base",
            "labels": json.dumps(sorted(NOTES)),
        }
        approval = standing(base, shared_noise=True, votes=True)
        (place / "site.toml").write_text(SITE.format(**settings, partners="[]") + approval)
        begin_ledger(read_site(place / "site.toml"))
        keys[name] = public_hex(load_key(key_file(place / "records.ledger")))
        settings["partners"] = "PARTNERS"
        (place / "site.toml").write_text(SITE.format(**settings) + approval)
    for name in NAMES:
        partners = [key for other, key in keys.items() if other != name] if shared else []
        path = folder / name / "site.toml"
        path.write_text(path.read_text().replace("PARTNERS", json.dumps(partners)))
    members = {name: member(key) for name, key in keys.items()}
    recipe = resolved_votes(study_file(folder, models, votes=votes, privacy=privacy), members)
    admitted = {}
    for name in NAMES:
        file = read_site(folder / name / "site.toml")
        held = EpochKeys() if shared else None
        admitted[name] = open_for_study(file, recipe, read_records(file), keys=held)
    run = RunDirectory.create(folder / "run", recipe)
    submitted = Run(name="run", standing=RunStatus.RUNNING, flower_run=0, sites=NAMES)
    write_run(run.path, submitted)
    return Deployed(folder, recipe, members, admitted, Ed25519PrivateKey.generate())


def test_sites_vote_and_a_coordinator_that_stops_goes_on_without_another_charge(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = f'rounds = 2\ngenerator = "{models}/generator"\nmost_tokens = 4'
    made = deployed(tmp_path, models, votes=more)
    real = Journal.round_closed

    def crash(self: Journal, report: Any) -> None:
        if report.round == 2:
            raise KeyboardInterrupt
        real(self, report)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "round_closed", crash)
        with pytest.raises(KeyboardInterrupt):
            made.execute()
    place = made.run.path
    keep_publication(place, Publication("CC0-1.0", creator="the clinics"))
    before = {path.name: path.read_bytes() for path in (place / "votes").iterdir()}
    assert set(before) == {f"{kind}-00{n}.json" for kind in ("candidates", "votes") for n in (1, 2)}
    # The counts of round 2 are lost too: the sites are asked again, and send the same bytes.
    (place / "votes" / "votes-002.json").unlink()
    made.execute()
    assert {path.name: path.read_bytes() for path in (place / "votes").iterdir()} == before
    for name in NAMES:
        assert made.charges(name) == [(1, "vote"), (2, "vote")]
    assert [row["round"] for row in made.run.metrics()] == [1, 2]
    facts = read_facts(place / "records" / "synthetic.jsonl")
    assert facts is not None
    assert facts.voted == dict.fromkeys(NAMES, 2)
    assert facts.digest == made.recipe.digest()
    metadata = json.loads((place / "records" / "synthetic.croissant.json").read_text())
    assert (metadata["license"], metadata["creator"]["name"]) == ("CC0-1.0", "the clinics")
    for name, promise in facts.promises.items():
        assert promise == made.admitted[name].site.ledger.promise
    missing = promise_words(replace(facts, promises={**facts.promises, "north": None}))
    assert "ε = ∞: no certificate came of north" in missing
    told = [event for _, event in events(place)]
    assert told[-1]["what"] == "finished"
    # The institutions' certificates of these records, and what was received: both verifiers.
    files = adapter_files(place / "records")
    evidence = {
        name: certify(
            LedgerFile(tmp_path / name / "records.ledger").entries(),
            made.recipe.digest(),
            site=name,
            base=str(made.recipe.model.sha256),
            adapter=adapter_sha256(files),
            key=load_key(key_file(tmp_path / name / "records.ledger")),
            time=now(),
        )
        for name in NAMES
    }
    received = received_in(made.run)
    assert len(received) == 6
    write_bundle(tmp_path / "bundle.zip", Bundle(evidence, files, received))
    keys = {name: one.ledger_key for name, one in made.members.items()}
    assert verdicts(tmp_path / "bundle.zip", keys) == (True, True)


def test_a_sum_goes_on_without_a_site_that_was_cut_off_after_its_charge(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With shared noise: of three sites two are summed, and their noise is the plan's."""
    shared = 'noise = "shared"\nmissing_sites = 1\ncolluding_sites = 0'
    made = deployed(tmp_path, models, privacy=shared)
    real, seen = voting.release_vote_share, list[Any]()

    def cut_off(clipped: Any, noise: Any, entropy: Any) -> Any:
        if not seen:
            seen.append(None)
            raise OSError("no room")
        seen.append(real(clipped, noise, entropy))
        return seen[-1]

    monkeypatch.setattr(voting, "release_vote_share", cut_off)
    made.execute()
    kept = json.loads((made.run.path / "votes" / "votes-001.json").read_text())
    (plan,) = {one.plan.digest(): one.plan for one in made.admitted.values()}.values()
    noise = plan.shared_vote_noise()
    assert kept["votes"] == ((seen[1] + seen[2]) * noise.grid).tolist()
    assert kept["sites"] == 2
    assert kept["noise"] == pytest.approx(2.0, rel=1e-3)
    assert [made.charges(name) for name in NAMES] == [[(1, "vote")]] * 3
    facts = read_facts(made.run.path / "records" / "synthetic.jsonl")
    assert facts is not None
    assert sorted(facts.voted.values()) == [0, 1, 1]
    # A coordinator that lost the sum cannot get it again, and the site is not charged again.
    (made.run.path / "votes" / "votes-001.json").unlink()
    for one in made.admitted.values():
        assert one.site.keys is not None
        one.site.keys.terms = None
    with pytest.raises(CloisterError, match="no votes came in any round"):
        made.execute()
    assert [made.charges(name) for name in NAMES] == [[(1, "vote")]] * 3
    assert not np.array(json.loads(_content(made))["votes"]).any()


def _content(made: Deployed) -> str:
    return (made.run.path / "votes" / "votes-001.json").read_text()


def test_what_cannot_be_is_refused_before_any_site_is_asked(tmp_path: Path, models: Path) -> None:
    with pytest.raises(UsageError, match="no site was approved yet"):
        resolved_votes(study_file(tmp_path, models), {})
    few = {name: member() for name in NAMES[:2]}
    for changes, error, why in (
        ({"privacy": 'noise = "shared"'}, RecipeError, "at least 3 sites"),
        ({"votes": "threshold = -1.0"}, RecipeError, "votes.threshold"),
    ):
        with pytest.raises(error, match=why):
            resolved_votes(study_file(tmp_path, models, **changes), few)
    path = study_file(tmp_path, models)
    path.write_text(path.read_text().replace("candidates = 6", "candidates = 12"))
    with pytest.raises(DataError, match=r"votes\.public: 2 texts"):
        resolved_votes(path, {name: member() for name in NAMES})
    path.write_text(path.read_text().replace("candidates = 12", "candidates = 60"))
    with pytest.raises(UsageError, match=r"votes\.candidates: 60 given; 3 sites with 120"):
        resolved_votes(path, {name: member() for name in NAMES})


def test_the_sizes_that_all_sites_declare_must_be_one_where_noise_is_shared(
    tmp_path: Path, models: Path
) -> None:
    """A site compares its own: for another size the others would add too little."""
    shared = 'noise = "shared"\nmissing_sites = 1\ncolluding_sites = 0'
    made = deployed(tmp_path, models, privacy=shared)
    path = tmp_path / "east" / "site.toml"
    path.write_text(path.read_text().replace("public_records = 40", "public_records = 50"))
    file = read_site(path)
    with pytest.raises(RefusedError, match="this site declares 50"):
        open_for_study(file, made.recipe, read_records(file))


def test_a_study_of_votes_takes_no_changes_from_the_command_line(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(tmp_path, models)
    folder = tmp_path / "desk"
    assert cli(["server", "init", str(folder), "--name", "desk", "--address", "localhost:1"]) == 0
    capsys.readouterr()
    given = ["run", "start", str(path), "--server", str(folder), "--set", "study.seed=1"]
    assert cli(given) == 2
    assert "--set, --from: given with a study of votes" in capsys.readouterr().err
    trains = tmp_path / "trains.toml"
    trains.write_text("[privacy]\nepsilon = 4.0\n")
    assert cli(["run", "start", str(trains), "--server", str(folder), "--license", "MIT"]) == 2
    assert "--license, --creator, --url: given with a study that trains" in capsys.readouterr().err


def test_what_is_stated_of_the_records_stays_with_the_run_and_damage_is_said(
    tmp_path: Path,
) -> None:
    keep_publication(tmp_path, Publication())
    assert list(tmp_path.iterdir()) == []
    assert kept_publication(tmp_path) == Publication()
    keep_publication(tmp_path, stated := Publication(url="https://example.org"))
    assert kept_publication(tmp_path) == stated
    for content in ("[1]", '{"license": 3}', "{", '{"licence": "MIT"}'):
        (tmp_path / "publication.json").write_text(content)
        with pytest.raises(BadFileError, match=r"publication.json: damaged"):
            kept_publication(tmp_path)
