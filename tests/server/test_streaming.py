"""A coordinator's memory does not grow with its sites where it needs their mean alone."""

import tracemalloc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.protocol.exchange import RECORD, RoundReply, Status, Step
from cloister.server.dispatch import Dispatcher, Timeouts
from cloister.server.rounds import run_study
from cloister.simulation.local_grid import LocalGrid
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.median import Median
from cloister.strategies.strategy import ServerState, Strategy
from tests.support.server_studies import server_study

SIZE = 100_000  # values of an update
START = Adapter({"w": np.zeros(SIZE, np.float32)})


@pytest.fixture(autouse=True)
def answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks for answers: each finds one."""
    unhurried = partial(Dispatcher, wait=lambda seconds: None)
    monkeypatch.setattr("cloister.server.rounds.Dispatcher", unhurried)


@dataclass
class OneAtATime(LocalGrid):
    """A Grid that makes a reply when it is pulled, and one at a time: none waits in memory."""

    asked: list[tuple[str, Message]] = field(default_factory=list)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
            self.asked.append((message.metadata.message_id, message))
        return [name for name, _ in self.asked]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        _, message = self.asked.pop(0)
        site = f"s{message.metadata.dst_node_id - 2:02d}"
        update = Adapter({"w": np.full(SIZE, float(site[1:]), np.float32)})
        fields = RoundReply(site, 1, Status.TRAINED, encode(update), 1.0, "ab" * 32).fields()
        if message.content[RECORD]["step"] == Step.PREPARE:
            fields = RoundReply(site, 0, Status.READY, b"", 0.0, "").fields()
        return [Message(RecordDict({RECORD: ConfigRecord(fields)}), reply_to=message)]


def peak(sites: int, strategy: Strategy, error: object = None) -> tuple[int, Adapter]:
    """Most bytes that a round held beyond what was there before, and the adapter it gave."""
    study = server_study(
        ServerState(START),
        tuple(f"s{number:02d}" for number in range(sites)),
        num_rounds=1,
        patience=Timeouts(60.0),
        max_update_norm=None,
        strategy=strategy,
        error=error,
    )
    tracemalloc.start()
    try:
        final = run_study(OneAtATime(ClientApp(), sites), study)
        return tracemalloc.get_traced_memory()[1], final.adapter
    finally:
        tracemalloc.stop()


UPDATE = SIZE * 4  # bytes


def test_thirty_sites_take_the_memory_of_three() -> None:
    few, _ = peak(3, FedAvg({}))
    many, adapter = peak(30, FedAvg({}))
    assert many - few < UPDATE
    assert adapter["w"] == pytest.approx(np.full(SIZE, np.mean(range(30))))


def test_what_needs_each_update_holds_each() -> None:
    """So that the test above can fail."""

    def error(before: Adapter, updates: Mapping[str, Adapter], after: Adapter) -> float:
        return float(len(updates))

    for strategy, wanted in ((FedAvg({}), error), (Median(), None)):
        few, many = (peak(sites, strategy, wanted)[0] for sites in (3, 30))
        assert many - few > 20 * UPDATE
