"""If an error happens at a site, a fixed status leaves it, and never the error's text."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.client import admission
from cloister.client.app import OpenSite, make_client_app
from cloister.client.round import answer
from cloister.client.site import Site
from cloister.errors import DataError, RefusedError
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import is_signed
from cloister.privacy import accounting
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe import Recipe
from cloister.server.replies import ROUNDING
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.study import SimulatedSites, plan_of, prepare, workspace_of
from cloister.training import gradients, local
from cloister.training.workspace import Workspace
from tests.support.ledgers import odometer
from tests.support.studies import small_recipe

SECRET = "patient Jane Doe, positive"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study")


def ask(open_site: OpenSite | SimulatedSites, request: dict[str, object]) -> RoundReply:
    app = (
        make_client_app(open_site.admitted, Unsigned(), identify=open_site.identity)
        if isinstance(open_site, SimulatedSites)
        else make_client_app(open_site, Unsigned())
    )
    grid = LocalGrid(app, 1)
    (node,) = grid.get_node_ids()
    content = RecordDict({RECORD: ConfigRecord(request)})  # type: ignore[arg-type]
    (reply,) = grid.send_and_receive([Message(content, node, MessageType.TRAIN)])
    assert reply.has_content()
    assert SECRET not in str(reply.content)
    return RoundReply.from_fields(dict(reply.content[RECORD]))


def sites(recipe: Recipe, folder: Path) -> SimulatedSites:
    """A study's sites with new ledgers."""
    run = RunDirectory.create(folder / "run", recipe)
    begin_ledgers(prepare(recipe), run)
    return SimulatedSites(recipe, run.path / "ledgers")


def request_for(recipe: Recipe, round_number: int = 1) -> RoundRequest:
    study = prepare(recipe)
    return RoundRequest(study.recipe.digest(), round_number, encode(workspace_of(study).start))


def test_a_round_is_answered_with_a_delta_and_charged(recipe: Recipe, tmp_path: Path) -> None:
    reply = ask(sites(recipe, tmp_path), request_for(recipe).fields())
    assert reply.status is Status.TRAINED
    assert reply.site == "east"
    assert decode(reply.delta, workspace_of(prepare(recipe)).start.shapes).norm() > 0
    ledger = Ledger(tmp_path / "run" / "ledgers" / "east.ledger")
    assert ledger.steps == 2
    # Of the whole plan, in the first round as in the last: not of the steps so far.
    plan = plan_of(prepare(recipe), "east")
    assert reply.epsilon == plan.epsilon_after(plan.num_rounds) > odometer(ledger, 1e-5)


def test_asked_again_a_site_sends_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    east = sites(recipe, tmp_path)
    first, again = (ask(east, request_for(recipe).fields()) for _ in range(2))
    assert first == again
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == 2


def test_a_round_asked_again_with_another_adapter_is_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    east = sites(recipe, tmp_path)
    ask(east, request_for(recipe).fields())
    moved = workspace_of(prepare(recipe)).start.scale(2.0)
    reply = ask(east, request_for(recipe).fields() | {"adapter": encode(moved)})
    assert (reply.status, reply.delta) == (Status.REFUSED, b"")


def test_a_round_that_was_cut_off_is_not_run_again(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    east = sites(recipe, tmp_path)

    def crash() -> None:
        raise DataError(SECRET)

    def ask_and_crash() -> RoundReply:
        grid = LocalGrid(make_client_app(east.admitted, Unsigned(), crash), 1)
        (node,) = grid.get_node_ids()
        content = RecordDict({RECORD: ConfigRecord(request_for(recipe).fields())})
        (reply,) = grid.send_and_receive([Message(content, node, MessageType.TRAIN)])
        return RoundReply.from_fields(dict(reply.content[RECORD]))

    assert ask_and_crash().status is Status.SPENT
    assert "round 1: DataError" in caplog.text  # its type, and no word of its text
    caplog.clear()
    assert ask(east, request_for(recipe).fields()).status is Status.SPENT
    assert "round 1: charged before and interrupted" in caplog.text
    assert ask(east, request_for(recipe, 2).fields()).status is Status.TRAINED


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"study": "another"}, Status.REFUSED),
        ({"round": 3}, Status.REFUSED),
        ({"round": 0}, Status.REFUSED),
        ({"adapter": b"garbage"}, Status.REFUSED),
        ({"noise_multiplier": 0.0}, Status.REFUSED),
        ({"step": "mask"}, Status.REFUSED),
        ({"step": "explain"}, Status.REFUSED),
    ],
)
def test_what_does_not_fit_is_not_trained_and_not_charged(
    recipe: Recipe, tmp_path: Path, change: dict[str, object], status: Status
) -> None:
    reply = ask(sites(recipe, tmp_path), request_for(recipe).fields() | change)
    assert reply.status is status
    assert reply.delta == b""
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == 0


def test_accountants_that_disagree_stop_the_release(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    east = sites(recipe, tmp_path)
    admission.agreed_epsilon.cache_clear()
    monkeypatch.setattr(accounting, "prv_epsilon", lambda events, delta: 0.1)
    reply = ask(east, request_for(recipe).fields())
    assert (reply.status, reply.delta) == (Status.REFUSED, b"")
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == 0


@pytest.mark.parametrize("value", [101.0, -1e4, 1e30])
def test_an_absurd_adapter_is_refused_and_not_charged(
    recipe: Recipe, tmp_path: Path, value: float
) -> None:
    """Values beyond all training make float32 rounding couple one record to its companions."""
    east, start = sites(recipe, tmp_path), workspace_of(prepare(recipe)).start
    name = next(iter(start))
    moved = np.array(start[name])
    moved.flat[0] = value
    adapter = encode(Adapter({**start, name: moved}))
    reply = ask(east, request_for(recipe).fields() | {"adapter": adapter})
    assert (reply.status, reply.delta) == (Status.REFUSED, b"")
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == 0


def opened(recipe: Recipe, folder: Path) -> tuple[Site, Workspace]:
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    return sites(recipe, folder)(context)


def test_records_grouped_by_another_unit_are_not_trained(recipe: Recipe, tmp_path: Path) -> None:
    east, workspace = opened(recipe, tmp_path)
    wrong = dataclasses.replace(east, unit=Unit.PERSON)
    with pytest.raises(RefusedError, match="grouped by person"):
        answer(wrong, workspace, request_for(recipe), lambda: None)
    assert wrong.ledger.steps == 0


def test_a_ledger_that_allows_more_than_the_policy_is_not_charged(
    recipe: Recipe, tmp_path: Path
) -> None:
    east, workspace = opened(recipe, tmp_path)
    strict = dataclasses.replace(
        east.policy, budget=dataclasses.replace(east.policy.budget, epsilon=1.0)
    )
    with pytest.raises(RefusedError, match="a ledger's budget never changes"):
        answer(
            dataclasses.replace(east, policy=strict), workspace, request_for(recipe), lambda: None
        )
    assert east.ledger.steps == 0


def test_isolated_units_are_computed_one_by_one(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    east, workspace = opened(recipe, tmp_path)
    privacy = dataclasses.replace(east.policy.privacy, isolate_units=True)
    alone = dataclasses.replace(
        east, policy=dataclasses.replace(east.policy, privacy=privacy), units=tuple(east.units) * 4
    )
    sizes: list[int] = []
    real = gradients.record_gradients

    def counted(network, task, group, parameters):  # type: ignore[no-untyped-def]
        sizes.append(group.shape.rows)
        return real(network, task, group, parameters)

    monkeypatch.setattr(gradients, "record_gradients", counted)
    answer(alone, workspace, request_for(recipe), lambda: None)
    assert sizes
    assert set(sizes) == {1}


def test_a_spent_budget_is_said_in_one_word(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", "privacy.site_budgets=[0.01, 0.01]")
    assert ask(sites(recipe, tmp_path), request_for(recipe).fields()).status is Status.BUDGET


@pytest.mark.parametrize("error", [DataError(SECRET), ValueError(SECRET), MemoryError(SECRET)])
def test_whatever_goes_wrong_after_the_charge_is_one_word(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In training, in what the site keeps, or at the ledger's release: the round is spent."""

    def broken(*arguments: object, **options: object) -> object:
        raise error

    points = ((local, "clip_update"), (Reservation, "release"), (Site, "stated_epsilon"))
    for number, (owner, name) in enumerate(points):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            reply = ask(sites(recipe, tmp_path / str(number)), request_for(recipe).fields())
        assert (reply.status, reply.site, reply.delta) == (Status.SPENT, "east", b"")
        assert (reply.epsilon, reply.head) == (0.0, "")


def test_a_site_says_whether_it_takes_part_and_nothing_is_charged(
    recipe: Recipe, tmp_path: Path
) -> None:
    question = dataclasses.replace(request_for(recipe), round=0, adapter=b"", step=Step.PREPARE)
    reply = ask(sites(recipe, tmp_path), question.fields())
    assert reply == dataclasses.replace(
        RoundReply("east", 0, Status.READY, b"", 0.0, ""), signature=reply.signature
    )
    ledger = Ledger(tmp_path / "run" / "ledgers" / "east.ledger")
    assert is_signed(reply.statement(question.study), reply.signature, ledger.public_key)
    assert ledger.head.seq == 0


@pytest.mark.parametrize("error", [DataError(SECRET), ValueError(SECRET), KeyError(SECRET)])
def test_an_error_s_text_stays_at_the_site(error: Exception) -> None:
    def broken(context: Context) -> object:
        raise error

    reply = ask(broken, {"study": "s", "round": 1, "adapter": b""})  # type: ignore[arg-type]
    assert (reply.status, reply.site, reply.delta) == (Status.REFUSED, "", b"")


def test_an_update_travels_in_fewer_bytes_under_the_same_bound(tmp_path: Path) -> None:
    bound = 0.01  # far below an update's length: it is clipped to it
    sent = {}
    for dtype in ("float32", "bfloat16", "int8"):
        recipe = small_recipe(
            tmp_path / "study", f"training.update_dtype={dtype}", f"privacy.max_update_norm={bound}"
        )
        folder = tmp_path / dtype
        sent[dtype] = ask(sites(recipe, folder), request_for(recipe).fields()).delta
        shapes = workspace_of(prepare(recipe)).start.shapes
        assert 0.98 * bound < decode(sent[dtype], shapes).norm() <= bound * (1 + ROUNDING)
    start = workspace_of(prepare(recipe)).start
    assert len(sent["float32"]) - len(sent["bfloat16"]) == 2 * start.size - 1
    assert len(sent["float32"]) - len(sent["int8"]) == 3 * start.size - 4 * len(start) + 3
