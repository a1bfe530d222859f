"""The round loop takes valid updates, discards others, and stops when it must."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.factor_pairs import cut
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import QuorumError
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.server.dispatch import Timeouts
from cloister.server.report import RoundReport
from cloister.server.rounds import run_study
from cloister.server.study import ServerStudy
from cloister.simulation.local_grid import LocalGrid
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.flexlora import FlexLora
from cloister.strategies.median import Median
from cloister.strategies.norm_gate import NormGate
from cloister.strategies.strategy import ServerState, Strategy
from tests.support.server_studies import server_study

START = Adapter({"w": np.zeros(2)})
ONE = Adapter({"w": np.ones(2)})
NAMES = ("a", "b", "c")

Answer = Callable[[str, int], Mapping[str, object]]


def good(site: str, number: int) -> Mapping[str, object]:
    return RoundReply(site, number, Status.TRAINED, encode(ONE), 1.0, "ab" * 32).fields()


def ready(site: str) -> Mapping[str, object]:
    return RoundReply(site, 0, Status.READY, b"", 0.0, "").fields()


def grid(
    answer: Answer,
    sites: int = len(NAMES),
    prepared: Callable[[str], Mapping[str, object]] = ready,
) -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request = RoundRequest.from_fields(dict(message.content[RECORD]))
        site = "abcd"[int(str(context.node_config["partition-id"]))]
        preparing = request.step is Step.PREPARE
        fields = prepared(site) if preparing else answer(site, request.round)
        content = RecordDict({RECORD: ConfigRecord(dict(fields))})  # type: ignore[arg-type]
        return Message(content, reply_to=message)

    return LocalGrid(app, sites)


def study(**changes: object) -> ServerStudy:
    given = {"min_sites": 2, **changes}
    return server_study(
        ServerState(START),
        NAMES,
        num_rounds=given.pop("num_rounds", 2),  # type: ignore[arg-type]
        patience=Timeouts(1.0),
        max_update_norm=given.pop("max_update_norm", ONE.norm()),  # type: ignore[arg-type]
        **given,
    )


def test_every_round_is_saved_before_the_next() -> None:
    saved: list[int] = []
    final = run_study(grid(good), study(save=lambda state, report: saved.append(state.round)))
    assert saved == [1, 2]
    assert final.adapter["w"].tolist() == [2.0, 2.0]


def test_a_resumed_study_starts_after_its_last_closed_round() -> None:
    final = run_study(grid(good), study(state=ServerState(ONE, 1)))
    assert final.round == 2
    assert final.adapter["w"].tolist() == [2.0, 2.0]


def test_a_round_is_reported_before_its_evaluation_is_waited_for() -> None:
    class Stopped(BaseException):
        pass

    def ask(*_: object) -> None:
        raise Stopped

    reports: list[RoundReport] = []
    private = SimpleNamespace(is_due=lambda state: state.round == 1, ask=ask)
    with pytest.raises(Stopped):
        run_study(grid(good), study(evaluation=private, on_round=reports.append))
    assert [sorted(report.received) for report in reports] == [list(NAMES)]


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


@pytest.mark.parametrize("strategy", [FedAvg({}), Median()])
@pytest.mark.parametrize(
    "delta",
    [
        encode(Adapter({"w": np.array([1e3, 1e3])})),
        encode(Adapter({"v": np.ones(2)})),
        encode(ONE, "bfloat16"),
        b"garbage",
    ],
    ids=["too long", "another name", "another dtype", "garbage"],
)
def test_by_default_a_round_goes_on_without_what_cannot_count(
    strategy: Strategy, delta: bytes
) -> None:
    """Who sent it would send it again: waiting for it would let one site halt the study."""
    reports: list[RoundReport] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        return {**good(site, number), **({"delta": delta} if site == "c" else {})}

    final = run_study(
        grid(answer, 4),
        study(
            sites=("a", "b", "c", "d"), strategy=strategy, min_sites=None, on_round=reports.append
        ),
    )
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    assert [(set(report.refused), report.missing) for report in reports] == [({"c"}, ("c",))] * 2


@pytest.mark.parametrize("change", [{"status": "failed"}, {"status": "refused"}])
def test_by_default_a_site_that_says_it_cannot_is_waited_for(change: Mapping[str, object]) -> None:
    def answer(site: str, number: int) -> Mapping[str, object]:
        return {**good(site, number), **(change if site == "c" else {})}

    with pytest.raises(QuorumError, match="3 are needed"):
        run_study(grid(answer), study(min_sites=None))


def test_when_nothing_that_came_can_count_the_run_ends() -> None:
    def answer(site: str, number: int) -> Mapping[str, object]:
        return {**good(site, number), "delta": b"garbage"}

    with pytest.raises(QuorumError, match="0 of 3 sites"):
        run_study(grid(answer), study(min_sites=None))


@pytest.mark.parametrize("strategy", [Median(), NormGate(3.0)])
def test_a_method_left_with_too_few_sites_that_have_budget_ends_with_what_it_has(
    strategy: Strategy,
) -> None:
    notes: list[str] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        spent = site == "c" and number == 2
        return {
            **good(site, number),
            **({"status": "budget", "delta": b"", "epsilon": 0.0, "head": ""} if spent else {}),
        }

    final = run_study(grid(answer), study(strategy=strategy, min_sites=None, on_note=notes.append))
    assert final.round == 1
    assert notes == [
        "fewer than 3 sites have budget, which this strategy needs: ending after round 1"
    ]


def test_a_gate_skips_a_round_that_was_cut_off_everywhere() -> None:
    def answer(site: str, number: int) -> Mapping[str, object]:
        cut = {"status": "spent", "delta": b"", "epsilon": 0.0, "head": ""}
        return {**good(site, number), **(cut if number == 1 else {})}

    final = run_study(grid(answer), study(strategy=NormGate(3.0), min_sites=None))
    assert final.round == 2
    assert final.adapter["w"].tolist() == [1.0, 1.0]


def test_a_site_may_send_each_rank_that_it_may_have_and_no_other() -> None:
    """At an institution `site.toml` says which of the study's ranks it trains."""
    pair = {"m.lora_A.weight": np.ones((4, 3)), "m.lora_B.weight": np.ones((2, 4))}
    start = Adapter(pair)
    sent = {"a": cut(start, 1), "b": cut(start, 4), "c": cut(start, 3)}
    reports: list[RoundReport] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        return {**good(site, number), "delta": encode(sent[site])}

    run_study(
        grid(answer),
        study(
            strategy=FlexLora({}),
            state=ServerState(start),
            num_rounds=1,
            max_update_norm=None,
            trained=lambda number: frozenset(pair),
            on_round=reports.append,
            ranks=dict.fromkeys(NAMES, frozenset({1, 2, 4})),
        ),
    )
    assert set(reports[0].received) == {"a", "b"}
    assert "its tensors are not those that the study trains" in reports[0].refused["c"]


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
        run_study(grid(answer), study(save=lambda state, report: saved.append(state.round)))
    assert saved == [1]
