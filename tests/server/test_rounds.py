"""The coordinator's loop: what it takes, what it discards, when it stops."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import QuorumError
from cloister.server.asking import Patience
from cloister.server.rounds import run_study
from cloister.server.study import RoundReport, ServerStudy
from cloister.simulation.local_grid import LocalGrid
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.norm_gate import NormGate
from cloister.strategies.strategy import ServerState

START = Adapter({"w": np.zeros(2)})
ONE = Adapter({"w": np.ones(2)})
NAMES = ("a", "b", "c")

Answer = Callable[[str, int], Mapping[str, object]]


def good(site: str, number: int) -> Mapping[str, object]:
    return RoundReply(site, number, Status.TRAINED, encode(ONE), 1.0, "head").fields()


def grid(answer: Answer) -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request = RoundRequest.from_fields(dict(message.content[RECORD]))
        site = NAMES[int(str(context.node_config["partition-id"]))]
        fields = answer(site, request.round)
        content = RecordDict({RECORD: ConfigRecord(dict(fields))})  # type: ignore[arg-type]
        return Message(content, reply_to=message)

    return LocalGrid(app, len(NAMES))


def study(**changes: object) -> ServerStudy:
    whole = ServerStudy(
        digest="d",
        sites=NAMES,
        strategy=FedAvg({}),
        state=ServerState(START),
        num_rounds=2,
        min_sites=2,
        patience=Patience(1.0),
        trained=lambda number: frozenset({"w"}),
        max_update_norm=ONE.norm(),
        score=lambda state: {},
        save=lambda state: None,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_every_round_is_saved_before_the_next() -> None:
    saved: list[int] = []
    final = run_study(grid(good), study(save=lambda state: saved.append(state.round)))
    assert saved == [1, 2]
    assert final.adapter["w"].tolist() == [2.0, 2.0]


def test_a_resumed_study_starts_after_its_last_closed_round() -> None:
    final = run_study(grid(good), study(state=ServerState(ONE, 1)))
    assert final.round == 2
    assert final.adapter["w"].tolist() == [2.0, 2.0]


BAD: dict[str, Mapping[str, object]] = {
    "refused": {"status": "refused"},
    "another round": {"round": 99},
    "another's name": {"site": "a"},
    "a stranger": {"site": "x"},
    "not an adapter": {"delta": b"garbage"},
    "another shape": {"delta": encode(Adapter({"w": np.ones(3)}))},
    "a larger norm than agreed": {"delta": encode(Adapter({"w": np.array([1.0, 1.001])}))},
    "a further field": {"loss": 0.1},
    "negative epsilon": {"epsilon": -1.0},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_a_reply_that_is_not_what_it_must_be_is_left_out(change: Mapping[str, object]) -> None:
    reports: list[RoundReport] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        return {**good(site, number), **(change if site == "c" else {})}

    final = run_study(grid(answer), study(on_round=reports.append))
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    assert [report.missing for report in reports] == [("c",), ("c",)]
    for report in reports:  # the record says why; and which site, where that is known
        ((who, why),) = report.refused.items()
        assert who in ("a", "c", "a site")
        assert why


def test_a_gated_update_is_refused_with_its_reason_and_the_round_goes_on() -> None:
    reports: list[RoundReport] = []
    errors: list[set[str]] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        lie = {"delta": encode(ONE.scale(-1e3))} if site == "c" else {}
        return {**good(site, number), **lie}

    def error(before: Adapter, updates: Mapping[str, Adapter], after: Adapter) -> float:
        errors.append(set(updates))
        return 0.25

    final = run_study(
        grid(answer),
        study(strategy=NormGate(3.0), max_update_norm=None, error=error, on_round=reports.append),
    )
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    assert [set(report.refused) for report in reports] == [{"c"}, {"c"}]
    assert "above 3 times the median norm" in reports[0].refused["c"]
    assert errors == [{"a", "b"}, {"a", "b"}]
    assert reports[0].aggregation_error == 0.25


def test_too_few_updates_end_the_run_with_what_was_saved() -> None:
    saved: list[int] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        failing = number == 2 and site != "a"
        return {**good(site, number), **({"status": "failed"} if failing else {})}

    with pytest.raises(QuorumError, match=r"round 2: 1 of 3 sites .*\(b, c did not\), 2 are"):
        run_study(grid(answer), study(save=lambda state: saved.append(state.round)))
    assert saved == [1]
