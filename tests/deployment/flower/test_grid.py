"""A SuperLink that is restarted during a push has not taken the pushed messages."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.deployment.flower.grid import PUSHED_AT_ONCE, StudyGrid
from cloister.errors import NetworkError
from tests.support.clock import Clock, TimedGrid


def pushed(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[str]:
    """What comes of pushing two messages where Flower's Grid does as told."""

    def push(self: HttpGrid, messages: Iterable[Message]) -> object:
        assert len(list(messages)) == 2
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(HttpGrid, "push_messages", push)
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    message = Message(RecordDict({"a": ConfigRecord({"b": 1})}), 2, "train")
    return StudyGrid("localhost:1", insecure=True, token="t").push_messages(iter([message] * 2))


def test_a_push_that_breaks_off_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pushed(monkeypatch, ObjectPushError("o", 1, "s")) == ["", ""]


def test_what_flower_did_not_take_has_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pushed(monkeypatch, ["one", None]) == ["one", ""]


def test_messages_that_are_too_large_are_an_error_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NetworkError, match="this size"):
        pushed(monkeypatch, [])


def test_many_messages_go_in_calls_of_a_few_and_each_is_marked_after_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call with a round's messages timed out with 100 sites on a busy core."""
    told: list[tuple[str, list[int]]] = []

    def push(self: HttpGrid, messages: Iterable[Message]) -> list[str]:
        nodes = [int(message.metadata.dst_node_id) for message in messages]
        told.append(("pushed", nodes))
        if nodes[0] == 2 + PUSHED_AT_ONCE:
            raise ObjectPushError("o", 1, "s")
        return [str(node) for node in nodes]

    monkeypatch.setattr(HttpGrid, "push_messages", push)
    TimedGrid(Clock(), {})
    count = 2 * PUSHED_AT_ONCE + 1
    messages = [
        Message(RecordDict({"a": ConfigRecord({"b": 1})}), node, "train")
        for node in range(2, 2 + count)
    ]
    grid = StudyGrid("localhost:1", insecure=True, token="t")
    grid.on_pushed = lambda nodes: told.append(("marked", nodes))
    ids = grid.push_messages(messages)
    assert [len(ids), ids[0], ids[PUSHED_AT_ONCE], ids[-1]] == [count, "2", "", str(1 + count)]
    assert [what for what, _ in told] == ["pushed", "marked"] * 3
    assert sorted(node for what, nodes in told for node in nodes if what == "marked") == list(
        range(2, 2 + count)
    )
