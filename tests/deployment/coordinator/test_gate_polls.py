"""A poll that would bring nothing is held, and none is held that would bring something."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from flwr.supercore.protobuf.client import ProtobufClient
from google.protobuf.message import Message

from cloister.deployment.coordinator import gate as gate_module
from cloister.deployment.coordinator import gate_polls
from cloister.deployment.coordinator.gate_polls import ASK_ANYWAY, HOLD, Polls
from cloister.deployment.coordinator.gate_turns import LONGEST_WAIT, RANKS, Line
from cloister.deployment.coordinator.pushed import KnownMarks, PushedMarks
from tests.support import gate as gates
from tests.support.clock import Clock
from tests.support.gate import Gate, open_gate

# Flower's `ProtobufClient` gives a call up after these seconds.
SUPERNODE_PATIENCE = inspect.signature(ProtobufClient).parameters["timeout"].default
HEADERS = {"content-type": "application/protobuf"}
EMPTY = (b"", HEADERS)


async def never() -> dict[str, str]:
    await asyncio.Event().wait()
    return {}


async def at_once() -> dict[str, str]:
    return {"type": "http.disconnect"}


class Watched:
    """Polls over a file of marks, watched as the gate does."""

    def __init__(self, path: Path, hold: float = 0.05) -> None:
        self.push, self.clock = PushedMarks(path), Clock()
        self.polls = Polls(KnownMarks(path), self.clock, hold)

    def empty(self, node: int) -> None:
        """The SuperLink was asked for a node, and had nothing."""
        self.polls.came_empty(node, self.polls.mark(node), *EMPTY)

    async def held(self, node: int) -> object:
        return await self.polls.held(node, never)


def test_a_node_without_a_question_is_held_and_gets_the_same_empty_answer(tmp_path: Path) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json")
        made.push([8])
        assert await made.held(7) is None  # the SuperLink was not asked for it yet
        made.empty(7)
        began = time.monotonic()
        assert await made.held(7) == EMPTY
        assert time.monotonic() - began >= made.polls.hold

    asyncio.run(check())


def test_a_question_to_a_node_wakes_its_poll_and_no_other(tmp_path: Path) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json", hold=30.0)
        made.push(())
        made.empty(7)
        made.empty(8)
        seven, eight = (asyncio.ensure_future(made.held(node)) for node in (7, 8))
        await asyncio.sleep(0)
        made.push([7])
        made.polls.mark(9)  # a look at the file, as `watch` does
        assert await seven is None  # it is forwarded at once
        assert not eight.done()
        eight.cancel()

    asyncio.run(check())


def test_a_question_that_came_while_the_superlink_was_asked_is_not_missed(tmp_path: Path) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json", hold=30.0)
        made.push(())
        mark = made.polls.mark(7)
        made.push([7])  # stored after the SuperLink looked, before its empty answer arrived
        made.polls.came_empty(7, mark, *EMPTY)
        made.polls.mark(7)
        assert await made.held(7) is None

    asyncio.run(check())


@pytest.mark.parametrize("content", [None, b"{", b"[1]"])
def test_without_readable_marks_every_poll_is_forwarded(
    tmp_path: Path, content: bytes | None
) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json", hold=30.0)
        if content is not None:
            (tmp_path / "pushed.json").write_bytes(content)
        made.empty(7)
        assert await made.held(7) is None

    asyncio.run(check())


def test_marks_that_cannot_be_written_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pushed.json"
    path.parent.mkdir()
    push, known = PushedMarks(path), KnownMarks(path)
    push([7])
    assert known.refresh()
    assert known.of(7)
    path.unlink()
    path.parent.rmdir()
    push([7])
    assert known.refresh()
    assert known.of(7) is None


def test_a_new_executor_s_first_push_makes_all_others_be_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "pushed.json"
    PushedMarks(path)([7])
    known = KnownMarks(path)
    known.refresh()
    before = known.of(7)
    PushedMarks(path)([8])
    known.refresh()
    assert known.of(7) != before


def test_a_poll_s_waits_together_leave_a_supernode_time_to_read_the_answer() -> None:
    assert HOLD + LONGEST_WAIT + 10 <= SUPERNODE_PATIENCE


def test_the_superlink_is_asked_now_and_then_whatever_the_marks_say(tmp_path: Path) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json")
        made.push(())
        made.empty(7)
        made.clock.now += ASK_ANYWAY
        assert await made.held(7) is None

    asyncio.run(check())


def test_nothing_is_held_for_a_closed_connection_or_a_forgotten_node(tmp_path: Path) -> None:
    async def check() -> None:
        made = Watched(tmp_path / "pushed.json", hold=30.0)
        made.push(())
        made.empty(7)
        assert await made.polls.held(7, at_once) == EMPTY
        made.polls.forget(7)
        assert await made.held(7) is None

    asyncio.run(check())


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> list[Polls]:
    """The polls of each gate that is opened, which are held for a moment."""
    made: list[Polls] = []

    def polls(marks: KnownMarks) -> Polls:
        made.append(Polls(marks, hold=0.2))
        return made[-1]

    monkeypatch.setattr(gate_module, "Polls", polls)
    return made


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: list[Polls]) -> Iterator[Gate]:
    monkeypatch.setattr(gate_polls, "LOOK", 0.01)
    with open_gate(tmp_path) as made:
        yield made


def polls_asked(gate: Gate) -> int:
    return sum(path.endswith("pull-messages") for _, path, _, _ in gate.link.asked)


def test_the_gate_asks_the_superlink_once_until_there_is_a_question(
    gate: Gate, holds: list[Polls]
) -> None:
    push = PushedMarks(gate.folder.pushed)
    push(())
    gates.ask(gate)  # it got a question: its next poll is forwarded
    gate.link.said["pull-messages"] = b""
    assert gate.say(gates.poll()) == 200
    asked = polls_asked(gate)
    assert gate.say(gates.poll()) == 200  # held, and answered by the gate
    assert polls_asked(gate) == asked
    holds[-1].hold = 300.0  # however late it is woken: before it is answered by the gate
    later = threading.Timer(0.02, push, [[gates.NODE]])
    later.start()
    assert gate.say(gates.poll()) == 200  # woken
    later.join()
    assert polls_asked(gate) == asked + 1


def test_a_node_that_connects_again_is_asked_about(gate: Gate) -> None:
    PushedMarks(gate.folder.pushed)(())
    gates.ask(gate)
    gate.link.said["pull-messages"] = b""
    assert gate.say(gates.poll()) == 200
    asked = polls_asked(gate)
    assert gate.say(gates.activation()) == 200
    assert gate.say(gates.poll()) == 200
    assert polls_asked(gate) == asked + 1


def test_calls_beyond_the_superlink_s_turns_wait_and_then_are_refused() -> None:
    async def check() -> None:
        line = Line(most=2, wait=0.05)
        async with line.turn() as one, line.turn() as two, line.turn() as three:
            assert (one, two, three) == (True, True, False)
        async with line.turn() as again:
            assert again

    asyncio.run(check())


def test_who_ends_an_exchange_has_the_next_turn_before_who_begins_one() -> None:
    """And of equal ones, who came first."""

    async def check() -> list[str]:
        line, order = Line(most=1), []

        async def call(name: str) -> None:
            async with line.turn(RANKS.get(name, 0)) as taken:
                assert taken
                order.append(name)

        names = ["pull-messages", "pull-object", "push-messages", "push-object", "heartbeat"]
        async with line.turn():
            waiting = [asyncio.create_task(call(name)) for name in [*names, *names]]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(check()) == [
        name
        for name in ("heartbeat", "push-object", "push-messages", "pull-object", "pull-messages")
        for _ in range(2)
    ]


def test_calls_of_an_earlier_rank_do_not_keep_another_s_call_waiting_for_ever() -> None:
    """A member that always has a heartbeat waiting would otherwise silence every other member."""

    async def check() -> list[str]:
        now, order = Clock(), list[str]()
        line = Line(most=1, clock=now)

        async def call(name: str) -> None:
            async with line.turn(RANKS.get(name, 0)):
                order.append(name)
                now.wait(1.0)
                if name == "heartbeat" and len(order) < 2 * LONGEST_WAIT:
                    flood.append(asyncio.create_task(call(name)))
                    await asyncio.sleep(0)

        flood: list[asyncio.Task[None]] = []
        async with line.turn():
            waiting = [asyncio.create_task(call(name)) for name in ["heartbeat", *RANKS]]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await asyncio.gather(*flood)
        return order

    order = asyncio.run(check())
    assert max(order.index(name) for name in RANKS) < LONGEST_WAIT
    assert [name for name in order if name in RANKS] == list(RANKS)


def test_a_turn_for_one_who_left_goes_to_the_next() -> None:
    async def check() -> None:
        line = Line(most=1)

        async def call() -> bool:
            async with line.turn() as taken:
                return taken

        async with line.turn():
            gone, left, there = (asyncio.create_task(call()) for _ in range(3))
            await asyncio.sleep(0)
            gone.cancel()
        left.cancel()  # at the moment at which its turn has come
        assert await there
        async with asyncio.timeout(5), line.turn() as taken:
            assert taken

    asyncio.run(check())


@pytest.mark.parametrize("said", [gates.poll(), gates.reply()], ids=["poll", "reply"])
def test_a_call_of_a_member_that_is_revoked_while_it_waits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Message
) -> None:
    with gates.open_gate(tmp_path) as gate:
        gates.ask(gate)
        asked = len(gate.link.asked)

        @asynccontextmanager
        async def late(line: Line, rank: int = 0) -> AsyncIterator[bool]:
            gates.revoke(gate.folder, "ward")
            yield True

        monkeypatch.setattr(Line, "turn", late)
        assert gate.say(said) == 401
        assert len(gate.link.asked) == asked  # the SuperLink has not seen it


def test_a_poll_that_gets_no_turn_brings_nothing_and_the_next_is_forwarded(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def none(line: Line, rank: int = 0) -> AsyncIterator[bool]:
        yield False

    PushedMarks(gate.folder.pushed)([gates.NODE])  # it has a question
    gates.ask(gate)
    asked = polls_asked(gate)
    with monkeypatch.context() as patch:
        patch.setattr(Line, "turn", none)
        assert gate.say(gates.poll()) == 200
        assert polls_asked(gate) == asked
    assert gate.say(gates.poll()) == 200
    assert polls_asked(gate) == asked + 1


def test_a_call_that_gets_no_turn_is_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line.__init__, "__defaults__", (0, 0.01, time.monotonic))
    with open_gate(tmp_path) as gate:
        assert gate.say(gates.activation()) == 503
        assert gate.link.asked == []
