"""A deployment's card states each site's certificate, and not the coordinator's plan."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from cloister.client.admission import Admitted
from cloister.client.app import OpenSite, make_client_app
from cloister.client.site import Site
from cloister.client.site_file import read_site
from cloister.deployment.coordinator.deployed import DeployedStudy
from cloister.deployment.coordinator.journal import Run, events, write_run
from cloister.deployment.coordinator.journal import RunStatus as RunStanding
from cloister.deployment.coordinator.members import Member, MemberStatus
from cloister.deployment.coordinator.ports import Connected
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.opened_site import open_for_study
from cloister.deployment.site.records import read_records
from cloister.errors import RefusedError
from cloister.evidence.certificate_alone import check_alone
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.ledger.stated import shown
from cloister.models.base import weights_sha256
from cloister.protocol.delivery import NOTE
from cloister.protocol.signed_questions import TrustedCoordinator
from cloister.recipe import Recipe, sent_document
from cloister.server.ledger_heads import Heads
from cloister.server.ports import Participants
from cloister.server.run_directory import RunDirectory
from cloister.serving.model import load
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from tests.support.approvals import standing
from tests.support.studies import NOTES, small_recipe, write_notes

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
delta = {delta}
[privacy]
max_grad_norm = {clip}
{unit}
[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{base}"]
"""
STRICT = {"delta": "2e-6", "clip": "0.5", "unit": 'unit = "person"\nperson = "person"'}
LAX = {"delta": "4e-5", "clip": "8.0", "unit": ""}


class Here(Connected):
    """Members whose nodes are this process's."""

    def nodes(self, grid: Grid) -> dict[int, str]:
        return {SERVER_NODE + 1 + at: name for at, name in enumerate(("east", "west"))}

    def since(self, grid: Grid) -> dict[int, str]:
        return {}


@dataclass(frozen=True)
class OnOneMachine(DeployedStudy):
    """A deployed study whose nodes are this process's."""

    @property
    def participants(self) -> Participants:
        asked = super().participants
        return Here(**{f.name: getattr(asked, f.name) for f in fields(asked)})


@dataclass
class Deployed:
    """What a study left."""

    run: RunDirectory
    sites: Mapping[str, Site]
    admitted: Mapping[str, Admitted]
    recipe: Recipe
    card: str
    heads: Path

    def row(self, site: str) -> list[str]:
        """A site's row of the card's table."""
        [found] = [line for line in self.card.splitlines() if line.startswith(f"| {site} ")]
        return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Three members; `west` is stricter than the study, and `north` never answers."""
    folder = tmp_path_factory.mktemp("deployed")
    small_recipe(folder / "study")  # makes the base
    base = weights_sha256(folder / "study" / "base")
    recipe = small_recipe(
        folder / "study",
        f"task.labels={sorted(NOTES)}",
        "privacy.noise_multiplier=1.0",
        "data.sites=3",
        "federation.min_sites=2",
        "federation.absent_timeout=0.01",
        f"model.sha256='{base}'",
    )
    opened: dict[str, Admitted] = {}
    members: dict[str, Member] = {}
    for seed, (name, strictness) in enumerate({"east": LAX, "west": STRICT, "north": LAX}.items()):
        place = folder / name
        place.mkdir()
        write_notes(place / "records.jsonl", 40, seed=10 + seed)
        text = SITE.format(
            name=name,
            base=base,
            model=folder / "study" / "base",
            labels=json.dumps(sorted(NOTES)),
            **strictness,
        )
        unit = "person" if strictness is STRICT else "record"
        (place / "site.toml").write_text(text + standing(base, unit=unit))
        file = read_site(place / "site.toml")
        begin_ledger(file)
        key = public_hex(load_key(key_file(file.ledger)))
        members[name] = Member(
            standing=MemberStatus.APPROVED,
            token="",
            expires="2099-01-01T00:00:00+00:00",
            node_key=name,
            ledger_key=key,
            public_records=40,
        )
        if name != "north":
            opened[name] = open_for_study(file, recipe, read_records(file))

    def open_site(context: Context) -> Admitted:
        return opened[("east", "west")[int(str(context.node_config["partition-id"]))]]

    run = RunDirectory.create(folder / "run", recipe)
    submitted = Run(name="run", standing=RunStanding.RUNNING, flower_run=0, sites=tuple(members))
    write_run(run.path, submitted)
    key = Ed25519PrivateKey.generate()
    study = OnOneMachine.open(run, members, lambda: members, key, folder / "heads")
    study.execute(LocalGrid(signed_for(open_site, public_hex(key), recipe), 2))
    card = (run.adapter / "README.md").read_text()
    sites = {name: own.site for name, own in opened.items()}
    return Deployed(run, sites, opened, recipe, card, folder / "heads")


def signed_for(open_site: OpenSite, key: str, recipe: Recipe) -> ClientApp:
    """Two sites that answer what this key signed for each, as deployed ones do."""
    apps = [
        make_client_app(open_site, lambda name=name: TrustedCoordinator(key, name))
        for name in ("east", "west")
    ]
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        context.run_config["recipe"] = sent_document(recipe)
        return apps[int(str(context.node_config["partition-id"]))](message, context)

    return app


def test_a_stricter_site_s_own_promise_is_on_the_card(deployed: Deployed) -> None:
    _, epsilon, delta, unit, of, noise, _, _, clip, spent = deployed.row("west")
    ledger = deployed.sites["west"].ledger
    assert (unit, delta, clip) == ("person, with at most 1 of its records", "2e-06", "0.5")
    assert epsilon == shown(ledger.promise.epsilon, 3)
    assert of == "the whole plan"
    assert noise == "1"
    assert spent.endswith("at δ = 2e-06")
    # The coordinator's plan says another: one record, δ 1e-5, clip 1.
    assert deployed.recipe.privacy.delta == 1e-5
    _, lax, delta, unit, *_, clip, _ = deployed.row("east")
    assert (unit, delta, clip) == ("record", "1e-05", "1")
    assert float(lax) < float(epsilon)


def test_the_coordinator_remembers_what_each_ledger_released_last(deployed: Deployed) -> None:
    """For its next question to the site, of whatever study."""
    for site in deployed.sites.values():
        released = site.ledger.release_of(site.study, 2)
        assert released is not None
        assert Heads(deployed.heads).last(site.ledger.public_key) == released.hash


def test_a_site_that_did_not_answer_is_never_filled_in(deployed: Deployed) -> None:
    assert "north: no certificate, so what it was promised is not known" in deployed.card
    assert not [line for line in deployed.card.splitlines() if line.startswith("| north")]
    assert "tags:\n- lora\n- federated-learning\n" in deployed.card
    assert "\n- differential-privacy\n" not in deployed.card  # not all of it is known private


def test_certificates_are_kept_beside_the_adapter_and_hold(deployed: Deployed) -> None:
    folder = deployed.run.path / "certificates"
    assert {file.name for file in folder.iterdir()} == {
        "east.certificate.json",
        "west.certificate.json",
    }
    for name, site in deployed.sites.items():
        content = (folder / f"{name}.certificate.json").read_bytes()
        fields = check_alone(
            content,
            site=name,
            study=deployed.recipe.digest(),
            key=site.ledger.public_key,
            most_steps=4,
        )
        assert fields["promise"] == {
            **site.ledger.promise.to_json(),
            "epsilon_rdp": fields["promise"]["epsilon_rdp"],
        }
        assert fields["rounds"] == 2


def test_nothing_is_charged_for_a_certificate(deployed: Deployed) -> None:
    ledger = deployed.sites["west"].ledger
    head = ledger.head
    ledger.certificate(deployed.recipe.digest(), site="west", base="ab" * 32)
    assert ledger.head == head
    assert ledger.steps == 4


def test_a_site_certifies_no_study_that_it_did_not_charge(deployed: Deployed) -> None:
    from cloister.client.round import run_round
    from cloister.protocol.exchange import RoundRequest, Step

    own = deployed.admitted["west"]
    other = replace(own, site=replace(own.site, study="another"))
    with pytest.raises(RefusedError, match="no round of it was charged"):
        run_round(other, RoundRequest("another", 2, b"", Step.CERTIFY), lambda: None)


def test_the_sites_that_took_part_have_the_adapter_and_predict_as_the_run_does(
    deployed: Deployed,
) -> None:
    texts = ["chest pain at rest", "itchy rash", "knee swollen"]
    expected = load(deployed.run.path).predict(texts)
    for site in deployed.sites.values():
        assert site.deliveries is not None
        assert load(site.deliveries.folder).predict(texts) == expected
        said = json.loads((site.deliveries.folder / NOTE).read_text())["claim"]
        assert said["metric"] == "accuracy"
        assert f"| accuracy | {said['score']:.4f} |" in deployed.card
        assert said["rounds"] == 2
    notes = [str(event.get("text")) for _, event in events(deployed.run.path)]
    (offered,) = [text for text in notes if text.startswith("the adapter is offered to east, west")]
    assert "has 60 s to connect" in offered
    assert "the adapter was delivered to east, west" in notes
    # It took no part, so nothing of it is missing.
    assert not [text for text in notes if text.startswith("north: has not taken")]
    assert [event["what"] for _, event in events(deployed.run.path)][-1] == "finished"
