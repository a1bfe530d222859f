"""A plug-in's task and strategy in a deployed study: from the sites' own files to the card."""

import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context

from cloister.client.admission import Admitted
from cloister.client.site_file import read_site
from cloister.deployment.coordinator.deployed import resolved_recipe
from cloister.deployment.coordinator.journal import Run, write_run
from cloister.deployment.coordinator.journal import RunStatus as RunStanding
from cloister.deployment.coordinator.members import Member, MemberStatus
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.opened_site import open_for_study
from cloister.deployment.site.records import read_records
from cloister.errors import RecipeError
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.models.base import weights_sha256
from cloister.recipe import parse_document, sent_document
from cloister.server.run_directory import RunDirectory
from cloister.simulation.local_grid import LocalGrid
from cloister.strategies.config import CarriedStrategy
from cloister.tasks.guard import GuardedTask
from tests.deployment.coordinator.test_deployed_card import LAX, SITE, OnOneMachine, signed_for
from tests.support.approvals import standing
from tests.support.plugins import Site, packages
from tests.support.studies import NOTES, small_assignments, small_recipe, write_notes

__all__ = ["packages"]  # a fixture

EXAMPLES = Path(__file__).parents[3] / "examples"
KIND = "multi:MultiLabel"
BOTH = [f"task.kind={KIND}", "strategy.name=cautious"]


@pytest.fixture
def installed(packages: Site) -> Site:
    packages.package("multi", (EXAMPLES / "custom_task.py").read_text())
    entries = {"cloister.strategies": {"cautious": "careful:Cautious"}}
    packages.package("careful", (EXAMPLES / "custom_strategy.py").read_text(), "0.3", entries)
    return packages


def member(key: str, node: str) -> Member:
    return Member(
        standing=MemberStatus.APPROVED,
        token="",
        expires="2099-01-01T00:00:00+00:00",
        node_key=node,
        ledger_key=key,
        public_records=40,
    )


def test_a_deployed_study_runs_a_plug_in_s_task_and_strategy(
    installed: Site, tmp_path: Path, bert: Path
) -> None:
    base = weights_sha256(bert)
    recipe = small_recipe(
        tmp_path / "study",
        f"task.labels={sorted(NOTES)}",
        "privacy.noise_multiplier=1.0",
        "federation.absent_timeout=0.01",
        f"model.sha256='{base}'",
        *BOTH,
        base=bert,
    )
    sys.modules.pop("careful")
    opened: dict[str, Admitted] = {}
    members: dict[str, Member] = {}
    for seed, name in enumerate(("east", "west")):
        place = tmp_path / name
        place.mkdir()
        write_notes(place / "records.jsonl", 40, seed=10 + seed)
        labels = json.dumps(sorted(NOTES))
        text = SITE.format(name=name, base=base, model=bert, labels=labels, **LAX)
        text = text.replace("sequence-classification", KIND) + standing(base, task=KIND)
        (place / "site.toml").write_text(text)
        file = read_site(place / "site.toml")
        begin_ledger(file)
        members[name] = member(public_hex(load_key(key_file(file.ledger))), name)
        received = parse_document(sent_document(recipe))
        assert isinstance(received.strategy, CarriedStrategy)
        opened[name] = open_for_study(file, received, read_records(file))
    assert "careful" not in sys.modules  # no site imports a strategy
    assert isinstance(opened["east"].workspace.task, GuardedTask)
    assert opened["east"].shapes is not None  # its loss was proven

    def open_site(context: Context) -> Admitted:
        return opened[("east", "west")[int(str(context.node_config["partition-id"]))]]

    run = RunDirectory.create(tmp_path / "run", recipe)
    write_run(
        run.path, Run(name="run", standing=RunStanding.RUNNING, flower_run=0, sites=tuple(members))
    )
    key = Ed25519PrivateKey.generate()
    study = OnOneMachine.open(run, members, lambda: members, key, tmp_path / "heads")
    study.execute(LocalGrid(signed_for(open_site, public_hex(key), recipe), 2))
    rows = run.metrics()
    assert len(rows) == 2
    assert set(rows[-1]["test"]) == {"exact_match", "loss"}
    assert f"the plug-in `{KIND}`" in (run.adapter / "README.md").read_text()


def test_a_coordinator_starts_no_study_that_every_site_would_refuse(
    packages: Site, tmp_path: Path, bert: Path
) -> None:
    packages.module("multi", (EXAMPLES / "custom_task.py").read_text())
    assignments = [*small_assignments(tmp_path / "study", bert), f"task.kind={KIND}"]
    file = tmp_path / "recipe.toml"
    file.write_text("")
    members = {name: member("ab" * 32, name) for name in ("east", "west")}
    with pytest.raises(
        RecipeError, match=r"task\.kind: multi:MultiLabel is not part of an installed"
    ):
        resolved_recipe(file, assignments, members)
