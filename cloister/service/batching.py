"""One thread computes; requests that arrive meanwhile are answered together in its next pass.

A batch is what arrived while the batch before it was computed. No request waits for others to
fill a batch, so a single caller's answer is never delayed, and many callers share a pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from cloister.service.reply_stream import (
    REPLY_TOKENS,
    AskedReply,
    Decoding,
    Reply,
    can_join,
    decode,
)
from cloister.service.versions import Served, Version
from cloister.serving.inputs import Input
from cloister.serving.model import Model
from cloister.serving.predictions import Prediction
from cloister.training.generation import MOST_TOGETHER

# Most conversations that are decoded together. Of SmolLM2-135M in float32, reading the weights
# takes as long as the products of about ten rows; each row more adds its own.
MOST_CHATS = 16
Result = TypeVar("Result")


class QueueFullError(Exception):
    """The queue is full: the caller should retry later."""


class ClosedError(Exception):
    """The service is shutting down and accepts no new request."""


@dataclass(frozen=True)
class Predicted:
    """The predictions for one request's inputs.

    Attributes:
        predictions: In the inputs' order.
        version: The version of the model that computed all of them.
    """

    predictions: list[Prediction]
    version: Version


@dataclass(frozen=True)
class Rows:
    """The inputs of one request that waits.

    Attributes:
        inputs: The texts, pairs or lists of items to predict for.
        tokens: Sum of their tokens, which bounds the size of a batch.
        answer: Set by the computing thread; cancelled if the caller no longer waits.
    """

    inputs: Sequence[Input]
    tokens: int
    answer: Future[Predicted] = field(default_factory=Future)


@dataclass(frozen=True)
class Talk:
    """A request that waits to be computed alone, as predictions with reasons are.

    Attributes:
        reply: Computes the answer with the version that is served at that moment.
        answer: Set by the computing thread; cancelled if the caller no longer waits.
    """

    reply: Callable[[Version], object]
    answer: Future[object] = field(default_factory=Future)


@dataclass(frozen=True)
class WaitingChat:
    """A conversation that waits for its reply, which may be decoded together with others.

    Attributes:
        how: The settings of decoding.
        prepare: Makes the prompt for the version that is served at that moment, or the whole reply
            if nothing is to be decoded.
        finish: Completes a decoded reply.
        answer: Set by the computing thread; cancelled if the caller no longer waits.
    """

    how: Decoding
    prepare: Callable[[Version], AskedReply | Reply]
    finish: Callable[[Reply], Reply]
    answer: Future[object] = field(default_factory=Future)


# A conversation with its prompt.
Ready = tuple[WaitingChat, AskedReply]


class Batcher:
    """A bounded queue in front of the one thread that computes.

    Args:
        served: Holds the version of the model that answers.
        most_tokens: Most tokens of the requests in one batch. A single request may have more:
            the model then splits it into several passes.
        most_waiting: Most requests that may wait.
        on_batch: Called from the computing thread with the number of requests and of tokens in a
            batch.
    """

    def __init__(
        self,
        served: Served,
        most_tokens: int,
        most_waiting: int,
        on_batch: Callable[[int, int], None],
    ) -> None:
        self._served = served
        self._most_tokens, self._most_waiting = most_tokens, most_waiting
        self._on_batch = on_batch
        self._waiting: deque[Rows | Talk | WaitingChat] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="cloister-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that wait now."""
        return len(self._waiting)

    def put(self, asked: Rows | Talk | WaitingChat) -> None:
        """Adds a request to the queue.

        Raises:
            QueueFullError: `most_waiting` requests wait already.
            ClosedError: The service is shutting down.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if len(self._waiting) >= self._most_waiting:
                raise QueueFullError
            self._waiting.append(asked)
            self._changed.notify()

    def close(self) -> None:
        """Accepts no new request, and returns when all waiting requests are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (group := self._next()) is not None:
            if isinstance(group, list):
                self._predict(group)
            elif isinstance(group, tuple):
                self._converse(group)
            elif group.answer.set_running_or_notify_cancel():
                _finish(group.answer, partial(group.reply, self._served.current))

    def _next(self) -> Talk | list[Rows] | tuple[WaitingChat, ...] | None:
        """Waits for the next request or batch; None: closed, and the queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_closed)
            if not self._waiting:
                return None
            first = self._waiting.popleft()
            if isinstance(first, Talk):
                return first
            if isinstance(first, WaitingChat):
                return (first, *self._chats_beside(first))
            group, tokens = [first], first.tokens
            while self._waiting and isinstance(following := self._waiting[0], Rows):
                tokens += following.tokens
                if tokens > self._most_tokens:
                    break
                group.append(following)
                self._waiting.popleft()
            return group

    def _chats_beside(self, first: WaitingChat) -> Iterator[WaitingChat]:
        """Takes the conversations that follow a first one and may be decoded with it."""
        model = self._served.current.model
        for _ in range(MOST_CHATS - 1):
            following = self._waiting[0] if self._waiting else None
            if not isinstance(following, WaitingChat):
                return
            if not (can_join(model, first.how) and can_join(model, following.how)):
                return
            yield following
            self._waiting.popleft()

    def _converse(self, group: Sequence[WaitingChat]) -> None:
        version, ready = self._served.current, list[Ready]()
        for one in group:
            if not one.answer.set_running_or_notify_cancel():
                continue
            try:
                asked = one.prepare(version)
            except Exception as error:
                one.answer.set_exception(error)
                continue
            if isinstance(asked, Reply):
                _finish(one.answer, partial(one.finish, asked))
            else:
                ready.append((one, asked))
        # Another version may be served by now, of a base whose replies cannot be joined.
        is_joined = all(can_join(version.model, one.how) for one, _ in ready)
        for part in _parts(ready) if is_joined else [[one] for one in ready]:
            self._reply(version, part)

    def _reply(self, version: Version, part: Sequence[Ready]) -> None:
        try:
            replies = decode(version.model, [asked for _, asked in part])
        except Exception as error:  # each has handed out text already: none can begin again
            for one, _ in part:
                one.answer.set_exception(error)
            return
        for (one, _), reply in zip(part, replies, strict=True):
            _finish(one.answer, partial(one.finish, reply))

    def _predict(self, group: list[Rows]) -> None:
        asked = [rows for rows in group if rows.answer.set_running_or_notify_cancel()]
        if not asked:
            return
        self._on_batch(len(asked), sum(rows.tokens for rows in asked))
        version = self._served.current
        try:
            found = version.model.predict([one for rows in asked for one in rows.inputs])
        except Exception:
            # The inputs of one request may have caused the error: compute each request alone,
            # so that only that one fails.
            for rows in asked:
                _finish(rows.answer, partial(_alone, version, rows))
            return
        for rows in asked:
            own, found = found[: len(rows.inputs)], found[len(rows.inputs) :]
            rows.answer.set_result(Predicted(own, version))


def _parts(ready: Sequence[Ready]) -> list[list[Ready]]:
    """Cuts conversations into parts of at most `MOST_TOGETHER` tokens, padding and replies
    included; a longer conversation is a part of its own."""
    parts: list[list[Ready]] = []
    longest = 0
    for one in ready:
        asked = one[1]
        tokens = len(asked.prompt) + (asked.how.most_tokens or REPLY_TOKENS)
        if parts and (len(parts[-1]) + 1) * max(longest, tokens) <= MOST_TOGETHER:
            parts[-1].append(one)
            longest = max(longest, tokens)
        else:
            parts.append([one])
            longest = tokens
    return parts


def _alone(version: Version, rows: Rows) -> Predicted:
    model: Model = version.model
    return Predicted(model.predict(rows.inputs), version)


def _finish(answer: Future[Result], compute: Callable[[], Result]) -> None:
    try:
        answer.set_result(compute())
    except Exception as error:
        answer.set_exception(error)
