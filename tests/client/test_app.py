"""What leaves a site when something goes wrong: a fixed status, never an error's text."""

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.adapter.wire import decode, encode
from cloister.client.app import OpenSite, make_client_app
from cloister.errors import DataError
from cloister.recipe import Recipe
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from tests.support.studies import small_recipe

SECRET = "patient Jane Doe, positive"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study")


def ask(open_site: OpenSite, request: dict[str, object]) -> RoundReply:
    grid = LocalGrid(make_client_app(open_site), 1)
    (node,) = grid.get_node_ids()
    content = RecordDict({RECORD: ConfigRecord(request)})  # type: ignore[arg-type]
    (reply,) = grid.send_and_receive([Message(content, node, MessageType.TRAIN)])
    assert reply.has_content()
    assert SECRET not in str(reply.content)
    return RoundReply.from_fields(dict(reply.content[RECORD]))


def request_for(recipe: Recipe, round_number: int = 1) -> RoundRequest:
    study = prepare(recipe)
    return RoundRequest(study.recipe.digest(), round_number, encode(workspace_of(study).start))


def test_a_round_is_answered_with_a_delta_and_charged(recipe: Recipe, tmp_path: Path) -> None:
    reply = ask(SimulatedSites(recipe, tmp_path), request_for(recipe).fields())
    assert reply.status is Status.TRAINED
    assert reply.site == "east"
    assert decode(reply.delta, workspace_of(prepare(recipe)).start.shapes).norm() > 0
    assert len((tmp_path / "east.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"study": "another"}, Status.REFUSED),
        ({"round": 3}, Status.REFUSED),
        ({"round": 0}, Status.REFUSED),
        ({"adapter": b"garbage"}, Status.FAILED),
        ({"noise_multiplier": 0.0}, Status.FAILED),
    ],
)
def test_what_does_not_fit_is_not_trained_and_not_charged(
    recipe: Recipe, tmp_path: Path, change: dict[str, object], status: Status
) -> None:
    reply = ask(SimulatedSites(recipe, tmp_path), request_for(recipe).fields() | change)
    assert reply.status is status
    assert reply.delta == b""
    assert not (tmp_path / "east.jsonl").exists()


def test_rounds_beyond_the_plan_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    sites = SimulatedSites(recipe, tmp_path)
    statuses = [ask(sites, request_for(recipe).fields()).status for _ in range(3)]
    assert statuses == [Status.TRAINED, Status.TRAINED, Status.REFUSED]


@pytest.mark.parametrize("error", [DataError(SECRET), ValueError(SECRET), KeyError(SECRET)])
def test_an_error_s_text_stays_at_the_site(error: Exception) -> None:
    def broken(context: Context) -> tuple[object, object]:
        raise error

    reply = ask(broken, {"study": "s", "round": 1, "adapter": b""})  # type: ignore[arg-type]
    assert (reply.status, reply.site, reply.delta) == (Status.FAILED, "", b"")
