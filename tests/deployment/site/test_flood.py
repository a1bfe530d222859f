"""A coordinator that asks without end cannot fill a site's disk."""

import json
from pathlib import Path

import pytest

from cloister.deployment.site import refusals
from cloister.protocol.exchange import RoundRequest, Step
from cloister.protocol.signed_questions import signed
from tests.support.models import tiny_bert
from tests.support.studies import NOTES
from tests.support.wards import COORDINATOR, Ward

LONG = 200_000
# Of notes beside the refusals: what the agent does, and which records it serves.
OTHER_NOTES = 20_000


def test_a_flood_of_questions_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question is of another study and as large as it may be; its recipe fails at length."""
    monkeypatch.setattr(refusals, "FIRST", 3)
    monkeypatch.setattr(refusals, "LAST", 4)
    row = {"text": NOTES["cardiology"][0], "label": "cardiology", "person": "p"}
    ward = Ward.open(tmp_path / "ward", [row] * 8, tiny_bert(tmp_path / "base"), monkeypatch)
    notes = ward.agent._folder
    for number in range(40):
        study = "first" if number == 0 else f"{number:02d}" * 32
        recipe = json.dumps({f"key {n} {chr(200 + number) * 500}": 1 for n in range(200)})
        question = RoundRequest(study, number, b"x" * LONG, Step.PREPARE)
        ward.put(recipe, signed(question, COORDINATOR, recipe, to="ward", seen=""))
    sizes = [path.stat().st_size for path in notes.path.rglob("*") if path.is_file()]
    assert sum(sizes) < (3 + 2 * 4 + 1) * refusals.MOST_LINE + OTHER_NOTES
    assert len(sizes) < 6
    kept, dropped = notes.refusals(), notes.refusals_dropped()
    assert kept[0]["study"] == "first"
    assert dropped is not None
    assert dropped.count + len(kept) == 40
