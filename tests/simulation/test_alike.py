"""Simulated sites whose records differ in one give equal answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from cloister.adapter.wire import decode, encode
from cloister.client.app import make_client_app
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import Unsigned
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from tests.support.studies import small_recipe

Row = dict[str, object]
PIN = "the patient has pin 4711"


SIMULATED: dict[str, Callable[[list[Row]], list[Row]]] = {
    "one more": lambda rows: [*rows, {**rows[0], "text": "no fever"}],
    "one less": lambda rows: rows[2:],
    "a long one": lambda rows: [{**rows[0], "text": "pain " * 500}, *rows[1:]],
    "a secret": lambda rows: [{**rows[0], "text": PIN}, *rows[1:]],
    "one left": lambda rows: [row for row in rows if row["site"] == "west"] + rows[:1],
}


@pytest.mark.parametrize("unit", ["record", pytest.param("person", marks=pytest.mark.nightly)])
def test_a_simulated_site_answers_alike_too(unit: str, tmp_path: Path) -> None:
    person = ["privacy.unit=person", "data.person=person"] if unit == "person" else []
    small_recipe(tmp_path / "study")
    train = tmp_path / "study" / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]

    def life(name: str, rows: list[Row]) -> list[tuple[object, ...]]:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = small_recipe(tmp_path / "study", f"data.train='{file}'", *person)
        run = RunDirectory.create(tmp_path / name, recipe)
        simulated = prepare(recipe)
        begin_ledgers(simulated, run)
        sites = SimulatedSites(recipe, run.path / "ledgers")
        grid = LocalGrid(make_client_app(sites.admitted, Unsigned(), identify=sites.identity), 1)
        adapter, study = encode(workspace_of(simulated).whole), simulated.recipe.digest()
        questions = [RoundRequest(study, 0, b"", Step.PREPARE)]
        questions += [RoundRequest(study, number, adapter) for number in (1, 2, 2, 3)]
        questions.append(RoundRequest(study, 1, b"garbage"))
        seen = []
        for question in questions:
            content = RecordDict({RECORD: ConfigRecord(cast(Any, question.fields()))})
            (node,) = grid.get_node_ids()
            (reply,) = grid.send_and_receive([Message(content, node, MessageType.TRAIN)])
            said = RoundReply.from_fields(dict(reply.content[RECORD]))
            shapes = decode(said.delta).shapes if said.delta else {}
            seen.append(
                (
                    said.site,
                    said.round,
                    said.status,
                    len(said.delta),
                    said.epsilon,
                    len(said.head),
                    len(said.signature),
                    dict(shapes),
                )
            )
        return seen

    plain = life("plain", rows)
    trained, refused = Status.TRAINED, Status.REFUSED
    assert [seen[2] for seen in plain] == [Status.READY, *[trained] * 3, refused, refused]
    for name, change in SIMULATED.items():
        assert life(name, change(rows)) == plain, name
