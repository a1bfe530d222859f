"""The fields that a policy tightens are found by comparing all fields, so none is forgotten."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cloister.client.changes import as_rows, changes
from cloister.client.site_file import read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.models.base import weights_sha256
from cloister.privacy.bands import coefficients
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import parse_recipe
from tests.support.ledgers import small_plan, voting_plan
from tests.support.models import tiny_bert
from tests.support.studies import NOTES
from tests.support.wards import Ward

OTHER = {
    "public_records": 17,
    "expected_batch_size": 3,
    "local_steps": 7,
    "num_rounds": 19,
    "noise_multiplier": 5.5,
    "max_grad_norm": 0.25,
    "max_update_norm": 0.125,
    "delta": 1e-7,
    "unit": Unit.PERSON,
    "max_records": 23,
    "neighbouring": "other",
    "sharing": Sharing(sites=3, missing=0, colluding=1, bits=32),
    "bands": coefficients(3, 3),
    "evaluations": Evaluations(rounds=(2,), noise_multiplier=5.5),
    "votes": 7,
}


def test_equal_plans_have_no_change() -> None:
    assert changes(small_plan(0.9, 3), small_plan(0.9, 3)) == ()


@pytest.mark.parametrize("name", [f.name for f in fields(Plan) if f.name != "message"])
def test_a_change_of_any_field_is_listed(name: str) -> None:
    one_step = replace(small_plan(0.9, 3), local_steps=1)
    asked = voting_plan() if name == "votes" else one_step  # only such a plan has candidates
    accepted = replace(asked, **{name: OTHER[name]})
    found = {change.name: (change.asked, change.accepted) for change in changes(asked, accepted)}
    assert found[name] == (getattr(asked, name), OTHER[name])
    assert set(found) <= {name, "sample_rate"}
    assert as_rows(changes(asked, accepted))[0]["field"] == name


def test_what_is_tightened_is_said_with_its_consequence() -> None:
    asked = small_plan(0.9, 3)
    less = replace(asked, expected_batch_size=1)
    found = {change.name: change for change in changes(asked, less, isolate_units=True)}
    assert "fewer batches: ε falls" in found["sample_rate"].consequence
    assert str(found["isolate_units"]).startswith("isolate_units: off asked, on by this site's")
    assert "several times longer" in found["isolate_units"].consequence


def test_evaluations_are_said_by_their_rounds() -> None:
    two, one = Evaluations(rounds=(1, 3), noise_multiplier=5.5), None
    (change,) = changes(*(replace(small_plan(0.9, 3), evaluations=few) for few in (two, one)))
    assert str(change).startswith("evaluations: after rounds 1, 3, noise 5.5 asked, None by this")
    assert "no part in later private evaluations" in str(change)


def test_the_consequence_of_hiding_persons_says_how_many_records_of_one_count() -> None:
    asked = small_plan(0.9, 3)
    (change,) = changes(asked, replace(asked, unit=Unit.PERSON))
    assert "of each person one record counts (max_records = 1)" in str(change)
    assert "public_records counts persons" in str(change)
    assert 'ask the coordinator for privacy.unit = "person"' in str(change)


def test_the_agent_notes_for_the_operator_that_it_isolates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_bert(tmp_path)
    rows = [
        {"text": NOTES[label][0], "label": label, "person": f"p{i}"}
        for i, label in enumerate(sorted(NOTES) * 6)
    ]
    ward = Ward.open(tmp_path / "ward", rows, base, monkeypatch)
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace("[privacy]\n", "[privacy]\nisolate_units = true\n"))
    recipe = parse_recipe(
        "",
        [
            f"model.base='{base}'",
            f"model.sha256='{weights_sha256(base)}'",
            f"task.labels={json.dumps(sorted(NOTES))}",
            "task.max_length=16",
            "data.sites=1",
            "data.public_records=40",
            "training.expected_batch_size=10",
            "lora.top_layers=0",
            "privacy.max_grad_norm=1.0",
            "federation.num_rounds=4",
        ],
    )
    seen = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert seen.said[2] is Status.READY
    noted = AgentFolder.of(read_site(path)).study()["changes"]
    assert "isolate_units" in {change["field"] for change in noted}
