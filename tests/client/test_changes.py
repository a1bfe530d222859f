"""What a policy tightens is found by comparing all fields: a new one cannot be forgotten."""

from dataclasses import fields, replace

import pytest

from cloister.client.changes import as_rows, changes
from cloister.privacy.plan import Plan
from cloister.privacy.secagg.sharing import Sharing
from cloister.privacy.units import Unit
from tests.support.ledgers import small_plan

OTHER = {
    "public_records": 17, "expected_batch_size": 3, "local_steps": 7, "num_rounds": 19,
    "noise_multiplier": 5.5, "max_grad_norm": 0.25, "max_update_norm": 0.125, "delta": 1e-7,
    "unit": Unit.PERSON, "max_records": 23, "neighbouring": "other",
    "sharing": Sharing(sites=3, missing=0, colluding=1, bits=32),
}  # fmt: skip


def test_equal_plans_have_no_change() -> None:
    assert changes(small_plan(0.9, 3), small_plan(0.9, 3)) == ()


@pytest.mark.parametrize("name", [f.name for f in fields(Plan) if f.name != "message"])
def test_a_change_of_any_field_is_listed(name: str) -> None:
    asked = small_plan(0.9, 3)
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


def test_the_consequence_of_hiding_persons_says_how_many_records_of_one_count() -> None:
    asked = small_plan(0.9, 3)
    (change,) = changes(asked, replace(asked, unit=Unit.PERSON))
    assert "of each person one record counts (max_records = 1)" in str(change)
    assert "public_records counts persons" in str(change)
    assert 'ask the coordinator for privacy.unit = "person"' in str(change)
