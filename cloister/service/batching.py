"""One thread that computes; what waits for it meanwhile is answered together in its next pass.

Nothing waits for company: a batch is what has arrived while the one before it was computed. So a
single caller's answer is never delayed, and many callers share passes of the network.
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
    """More waits than the service takes: the caller is told to come again later."""


class ClosedError(Exception):
    """The service ends and takes nothing more."""


@dataclass(frozen=True)
class Predicted:
    """Predictions of one request's inputs.

    Attributes:
        predictions: In the inputs' order.
        version: The version that gave all of them.
    """

    predictions: list[Prediction]
    version: Version


@dataclass(frozen=True)
class Rows:
    """Inputs of one request that wait.

    Attributes:
        inputs: What is predicted for.
        tokens: Their tokens in all, by which batches are bounded.
        answer: Set by the computing thread; cancelled where the caller no longer waits.
    """

    inputs: Sequence[Input]
    tokens: int
    answer: Future[Predicted] = field(default_factory=Future)


@dataclass(frozen=True)
class Talk:
    """A conversation that waits for its reply, which is decoded alone.

    Attributes:
        reply: Computes it with the version that is served when its turn comes.
        answer: Set by the computing thread; cancelled where the caller no longer waits.
    """

    reply: Callable[[Version], object]
    answer: Future[object] = field(default_factory=Future)


class Batcher:
    """A bounded queue before the one thread that computes.

    Args:
        served: The version of the model.
        most_tokens: Of the requests that are gathered for one pass; a single request may have
            more, and the model cuts its passes itself.
        most_waiting: Requests that may wait.
        on_batch: Is told how many requests and tokens went into a pass, from the computing thread.
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
        """Requests that wait now."""
        return len(self._waiting)

    def put(self, asked: Rows | Talk) -> None:
        """Adds a request to the queue.

        Raises:
            QueueFullError: `most_waiting` wait already.
            ClosedError: The service ends.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if len(self._waiting) >= self._most_waiting:
                raise QueueFullError
            self._waiting.append(asked)
            self._changed.notify()

    def close(self) -> None:
        """Takes nothing more, and returns when all that waited has its answer."""
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
        """Waits for the next conversation or batch; None: closed, and nothing is left."""
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
            # One request's inputs may be what fails: each is asked alone, and fails alone.
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
