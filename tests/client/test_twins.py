"""Twin sites, on D and on D with one record more: all that leaves and all that is written has the
same form, size and number; only noised values differ."""

import json
import logging
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.wire import decode, encode
from cloister.client.round import answer
from cloister.ledger.storage import LedgerFile
from cloister.protocol.exchange import RoundReply, RoundRequest, Status
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from tests.support.studies import small_recipe

EAST = Context(
    run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={}
)

# Of an entry, what follows from values, keys, paths and the clock.
OWN = {"sha256", "prev", "time", "key", "study", "request"}


def life(recipe: Recipe, folder: Path, caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """All that an onlooker sees of site east over a study."""
    caplog.clear()
    study = prepare(recipe)
    run = RunDirectory.create(folder, recipe)
    begin_ledgers(study, run)
    replies: list[RoundReply] = []
    start = encode(workspace_of(study).start)
    steps = []
    with caplog.at_level(logging.DEBUG):
        for number in (1, 2):
            site, workspace = SimulatedSites(recipe, run.path / "ledgers")(EAST)
            request = RoundRequest(study.recipe.digest(), number, start)
            replies.append(answer(site, workspace, request, lambda: steps.append(1)))
    ledger = run.ledger("east")
    return {
        "replies": [(r.site, r.round, r.status, len(r.delta), r.epsilon) for r in replies],
        "shapes": [decode(r.delta, workspace_of(study).start.shapes).shapes for r in replies],
        "steps": len(steps),
        "log": [
            (r.name, r.levelname, r.getMessage())
            for r in caplog.records
            if r.name.startswith("cloister")
        ],
        "files": sorted((f.name, f.stat().st_size) for f in ledger.parent.glob("east*")),
        "entries": [
            json.dumps({k: v for k, v in entry.fields.items() if k not in OWN}, sort_keys=True)
            for entry in LedgerFile(ledger).entries()
        ],
    }


@pytest.mark.parametrize("unit", ["record", "person"])
@pytest.mark.parametrize("change", ["one more", "none left"])
def test_a_neighbouring_site_looks_the_same_from_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str, change: str
) -> None:
    person = ["privacy.unit=person", "data.person=person"] if unit == "person" else []
    recipe = small_recipe(tmp_path / "study", *person)
    one = life(recipe, tmp_path / "one", caplog)
    rows = (tmp_path / "study" / "train.jsonl").read_text().splitlines()
    if change == "one more":
        rows.append('{"text": "no fever", "label": "cardiology", "site": "east", "person": "new"}')
    else:  # all of east's records but one are gone: batches are empty, or nearly
        kept = [row for row in rows if '"east"' in row][:1]
        rows = [row for row in rows if '"east"' not in row] + kept
    other_file = tmp_path / "study" / "other.jsonl"
    other_file.write_text("\n".join(rows) + "\n")
    other_recipe = small_recipe(tmp_path / "study", f"data.train='{other_file}'", *person)
    other = life(other_recipe, tmp_path / "other", caplog)
    assert other == one
    assert one["steps"] == 4
    assert all(status is Status.TRAINED for _, _, status, *_ in one["replies"])  # type: ignore[attr-defined]
