"""One thread computes; requests that arrive meanwhile are answered together in its next pass.

A batch is what arrived while the batch before it was computed. No request waits for others to
fill a batch, so a single caller's answer is never delayed, and many callers share a pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from cloister.service.versions import Served, Version
from cloister.serving.inputs import Input
from cloister.serving.model import Model
from cloister.serving.predictions import Prediction

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
    """A request that waits to be computed alone: a conversation, or people's items with reasons.

    Attributes:
        reply: Computes the answer with the version that is served at that moment.
        answer: Set by the computing thread; cancelled if the caller no longer waits.
    """

    reply: Callable[[Version], object]
    answer: Future[object] = field(default_factory=Future)


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
        self._waiting: deque[Rows | Talk] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="cloister-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that wait now."""
        return len(self._waiting)

    def put(self, asked: Rows | Talk) -> None:
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
            elif group.answer.set_running_or_notify_cancel():
                _finish(group.answer, partial(group.reply, self._served.current))

    def _next(self) -> Talk | list[Rows] | None:
        """Waits for the next conversation or batch; None: closed, and the queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_closed)
            if not self._waiting:
                return None
            first = self._waiting.popleft()
            if isinstance(first, Talk):
                return first
            group, tokens = [first], first.tokens
            while self._waiting and isinstance(following := self._waiting[0], Rows):
                tokens += following.tokens
                if tokens > self._most_tokens:
                    break
                group.append(following)
                self._waiting.popleft()
            return group

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


def _alone(version: Version, rows: Rows) -> Predicted:
    model: Model = version.model
    return Predicted(model.predict(rows.inputs), version)


def _finish(answer: Future[Result], compute: Callable[[], Result]) -> None:
    try:
        answer.set_result(compute())
    except Exception as error:
        answer.set_exception(error)
