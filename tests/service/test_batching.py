"""Waiting requests are answered together, in order, once; cancelled ones are skipped."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from cloister.service.batching import (
    MOST_CHATS,
    Batcher,
    ClosedError,
    QueueFullError,
    Rows,
    Talk,
    WaitingChat,
    _parts,
)
from cloister.service.reply_stream import AskedReply, Decoding, Reply
from cloister.service.versions import Served, Version
from cloister.training.generation import MOST_TOGETHER

SECONDS = 60  # longer than anything here takes on a machine with other work


class Held:
    """A model that answers with its inputs, and waits for leave before its first pass."""

    def __init__(self) -> None:
        self.leave, self.began = threading.Event(), threading.Event()
        self.passes: list[list[str]] = []

    def predict(self, inputs: Sequence[str]) -> list[str]:
        self.passes.append(list(inputs))
        self.began.set()
        assert self.leave.wait(SECONDS)
        if "bad" in inputs:
            raise ValueError("bad")
        return [text.upper() for text in inputs]


@contextmanager
def held(most_tokens: int = 100, most_waiting: int = 10) -> Iterator[tuple[Batcher, Held, Served]]:
    """A batcher whose first pass has begun with the input `first`."""
    model = Held()
    served = Served(lambda: Version("m", "1", cast(Any, model)))
    seen: list[tuple[int, int]] = []
    batcher = Batcher(served, most_tokens, most_waiting, lambda *pair: seen.append(pair))
    batcher.put(Rows(["first"], 1))
    assert model.began.wait(SECONDS)
    try:
        yield batcher, model, served
    finally:
        model.leave.set()
        batcher.close()


def answers(rows: Rows) -> list[Any]:
    return list(rows.answer.result(SECONDS).predictions)


def test_what_waits_meanwhile_is_answered_in_one_pass_and_each_gets_its_own() -> None:
    with held() as (batcher, model, _):
        asked = [Rows([f"a{n}", f"b{n}"], 2) for n in range(5)]
        for rows in asked:
            batcher.put(rows)
        model.leave.set()
        assert [answers(rows) for rows in asked] == [[f"A{n}", f"B{n}"] for n in range(5)]
    assert len(model.passes) == 2


def test_a_pass_takes_no_more_tokens_than_it_may_unless_one_request_has_them() -> None:
    with held(most_tokens=10) as (batcher, model, _):
        asked = [Rows([str(n)], tokens) for n, tokens in enumerate([6, 4, 1, 50, 2])]
        for rows in asked:
            batcher.put(rows)
        model.leave.set()
        for rows in asked:
            answers(rows)
    assert model.passes[1:] == [["0", "1"], ["2"], ["3"], ["4"]]


def test_a_full_queue_refuses_and_keeps_what_it_took() -> None:
    with held(most_waiting=2) as (batcher, model, _):
        asked = [Rows([str(n)], 1) for n in range(2)]
        for rows in asked:
            batcher.put(rows)
        with pytest.raises(QueueFullError):
            batcher.put(Rows(["more"], 1))
        model.leave.set()
        assert [answers(rows) for rows in asked] == [["0"], ["1"]]


def test_what_nobody_waits_for_is_not_computed() -> None:
    with held() as (batcher, model, _):
        left, stays = Rows(["left"], 1), Rows(["stays"], 1)
        batcher.put(left)
        batcher.put(stays)
        assert left.answer.cancel()
        model.leave.set()
        assert answers(stays) == ["STAYS"]
        with pytest.raises(CancelledError):
            left.answer.result(SECONDS)
    assert model.passes[1:] == [["stays"]]


def test_one_request_that_fails_fails_alone() -> None:
    with held() as (batcher, model, _):
        good, bad, also = Rows(["a"], 1), Rows(["bad"], 1), Rows(["b"], 1)
        for rows in (good, bad, also):
            batcher.put(rows)
        model.leave.set()
        assert (answers(good), answers(also)) == (["A"], ["B"])
        with pytest.raises(ValueError, match="bad"):
            bad.answer.result(SECONDS)


def test_a_conversation_waits_its_turn_between_batches() -> None:
    order: list[str] = []

    def said(text: str) -> Callable[[Version], str]:
        def reply(version: Version) -> str:
            order.append(text)
            return text

        return reply

    with held() as (batcher, model, _):
        before, talk, after = Rows(["a"], 1), Talk(said("talk")), Rows(["b"], 1)
        for asked in (before, talk, after):
            batcher.put(asked)
        model.leave.set()
        assert talk.answer.result(SECONDS) == "talk"
        assert answers(after) == ["B"]
    assert model.passes[1:] == [["a"], ["b"]]
    assert order == ["talk"]


def chats(count: int, how: Decoding, prompt: Callable[[int], tuple[int, ...]]) -> list[WaitingChat]:
    def prepare(number: int) -> Callable[[Version], AskedReply | Reply]:
        def prepared(_: Version) -> AskedReply | Reply:
            if number == 1:
                raise ValueError("too long")
            if number == 2:
                return Reply("nothing found", "stop", 0, 0)
            return AskedReply(prompt(number), how, lambda piece: None, lambda: False)

        return prepared

    def finish(reply: Reply) -> Reply:
        return replace(reply, text=reply.text.upper())

    return [WaitingChat(how, prepare(number), finish) for number in range(count)]


@pytest.mark.parametrize("can", [True, False])
def test_conversations_that_wait_are_decoded_together_if_they_can_be(
    monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    decoded: list[list[tuple[int, ...]]] = []

    def decode(model: object, asked: Sequence[AskedReply]) -> list[Reply]:
        decoded.append([one.prompt for one in asked])
        return [Reply(f"reply {one.prompt[0]}", "stop", 1, 1) for one in asked]

    monkeypatch.setattr("cloister.service.batching.decode", decode)
    monkeypatch.setattr("cloister.service.batching.can_join", lambda model, how: can)
    with held(most_waiting=50) as (batcher, model, _):
        waiting = chats(MOST_CHATS + 3, Decoding(), lambda number: (number,))
        waiting[4].answer.cancel()
        for chat in waiting[:5]:
            batcher.put(chat)
        batcher.put(between := Rows(["a"], 1))
        for chat in waiting[5:]:
            batcher.put(chat)
        model.leave.set()
        assert answers(between) == ["A"]
        with pytest.raises(ValueError, match="too long"):
            waiting[1].answer.result(SECONDS)
        texts = [
            waiting[n].answer.result(SECONDS) for n in range(MOST_CHATS + 3) if n not in (1, 4)
        ]
    said = ["NOTHING FOUND" if n == 2 else f"REPLY {n}" for n in (0, 2, 3, *range(5, 19))]
    assert [reply.text for reply in texts if isinstance(reply, Reply)] == said
    together = [[(0,), (3,)], [(n,) for n in range(5, 19)]]
    assert decoded == (together if can else [[one] for part in together for one in part])


def test_more_than_the_most_go_into_the_next_pass_and_an_error_is_every_caller_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def decode(model: object, asked: Sequence[AskedReply]) -> list[Reply]:
        sizes.append(len(asked))
        if len(sizes) == 2:
            raise RuntimeError("no memory")
        return [Reply("x", "stop", 1, 1) for _ in asked]

    monkeypatch.setattr("cloister.service.batching.decode", decode)
    monkeypatch.setattr("cloister.service.batching.can_join", lambda model, how: True)
    with held(most_waiting=50) as (batcher, model, _):
        waiting = [chats(1, Decoding(), lambda number: (1,))[0] for _ in range(MOST_CHATS + 2)]
        for chat in waiting:
            batcher.put(chat)
        model.leave.set()
        for chat in waiting[:MOST_CHATS]:
            assert chat.answer.result(SECONDS) == Reply("X", "stop", 1, 1)
        for chat in waiting[MOST_CHATS:]:
            with pytest.raises(RuntimeError, match="no memory"):
                chat.answer.result(SECONDS)
        batcher.put(later := chats(1, Decoding(), lambda number: (1,))[0])
        assert later.answer.result(SECONDS) == Reply("X", "stop", 1, 1)
    assert sizes == [MOST_CHATS, 2, 1]


def test_parts_hold_few_enough_tokens() -> None:
    def ready(tokens: int, most: int) -> tuple[WaitingChat, AskedReply]:
        how = Decoding(most)
        asked = AskedReply((1,) * tokens, how, lambda piece: None, lambda: False)
        return chats(1, how, lambda number: (1,))[0], asked

    third = MOST_TOGETHER // 3
    asked = [ready(third - 8, 8), ready(10, 10), ready(10, 10), ready(third, 8), ready(5, 5)]
    assert [len(part) for part in _parts(asked)] == [3, 2]
    long = ready(2 * MOST_TOGETHER, 1)
    assert [len(part) for part in _parts([long, long])] == [1, 1]


def test_closing_answers_everything_that_was_taken_and_takes_nothing_more() -> None:
    with held() as (batcher, model, _):
        asked = [Rows([str(n)], 60) for n in range(4)]
        for rows in asked:
            batcher.put(rows)
        closing = threading.Thread(target=batcher.close)
        closing.start()
        model.leave.set()
        closing.join(SECONDS)
        assert all(rows.answer.done() for rows in asked)
        with pytest.raises(ClosedError):
            batcher.put(Rows(["late"], 1))


def test_a_pass_is_of_the_version_with_which_it_began() -> None:
    with held() as (batcher, model, served):
        first = Rows(["x"], 1)
        batcher.put(first)
        following = Held()
        following.leave.set()
        served._open = lambda: Version("m", "2", cast(Any, following))
        served.exchange()
        model.leave.set()
        answered = first.answer.result(SECONDS)
    assert answered.version.digest == "2"
    assert model.passes == [["first"]]
    assert following.passes == [["x"]]
