"""Holds the polls of nodes that have no question, so that a waiting site costs next to nothing.

A SuperNode polls every 3 s, and each poll is a write to the SuperLink's database, about 10 ms of
CPU time. One SuperLink therefore serves about 300 waiting sites and then nothing else. The gate
knows from the executor which nodes got questions (`pushed`): it holds the poll of a node without
one, and forwards it as soon as there is one, or answers as the SuperLink did last time.

    poll -> is its node's mark known, and the same as before its last poll, which was empty?
            no:  forwarded
            yes: held; forwarded when the mark changes, or answered as empty after HOLD seconds

The SuperLink takes a question for delivered when it has answered. So a poll must not be held so
long that its SuperNode, which waits for 30 s, no longer reads the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.deployment.coordinator.pushed import KnownMarks

# Seconds for which a poll is held. Of the 30 s after which a SuperNode gives its call up, that
# leaves 10 for the SuperLink's turn (`gate_turns.LONGEST_WAIT`) and 10 for its answer.
HOLD = 10.0
# Seconds between looks at the marks: a question waits this long at most.
LOOK = 0.25
# Seconds after which the SuperLink is asked about a node whatever the marks say, in case that the
# executor ended between a push and its mark.
ASK_ANYWAY = 60.0


@dataclass(frozen=True)
class _Empty:
    """An answer without a question.

    Attributes:
        mark: The node's mark before it was asked about.
        at: When, by the clock.
        content: The answer's bytes.
        headers: The answer's headers.
    """

    mark: str
    at: float
    content: bytes
    headers: Mapping[str, str]


@dataclass
class Polls:
    """The nodes that have nothing to fetch, and the polls that wait.

    Attributes:
        marks: Says which nodes got questions.
        clock: Returns seconds of a monotonic clock.
        hold: Seconds for which a poll is held.
    """

    marks: KnownMarks
    clock: Callable[[], float] = time.monotonic
    hold: float = HOLD
    _empty: dict[int, _Empty] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self, node: int) -> str | None:
        """A node's present mark, to be taken before the SuperLink is asked; None: not known."""
        self._look()
        return self.marks.of(node)

    def came_empty(
        self, node: int, mark: str | None, content: bytes, headers: Mapping[str, str]
    ) -> None:
        """Notes the SuperLink's answer without a question.

        Args:
            node: The node that polled.
            mark: Its mark before the SuperLink was asked.
            content: The answer's bytes.
            headers: The answer's headers.
        """
        if mark is None:
            self.forget(node)
        else:
            kept = {name: value for name, value in headers.items() if name != "content-length"}
            self._empty[node] = _Empty(mark, self.clock(), content, kept)

    def forget(self, node: int) -> None:
        """Notes that a node got a question or connected again: its next poll is forwarded."""
        self._empty.pop(node, None)

    async def held(
        self, node: int, receive: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> tuple[bytes, Mapping[str, str]] | None:
        """Holds a poll while there is nothing for its node.

        Args:
            node: The node that polls.
            receive: The request's ASGI `receive`, after its body: tells when the connection ends,
                so that no poll is held for nobody.

        Returns:
            Bytes and headers of the empty answer, after `hold` seconds; None if the SuperLink must
            be asked, at once or since the node got a question.
        """
        if not self._is_idle(node):
            return None
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            async with asyncio.timeout(self.hold):
                while self._is_idle(node) and not leaving.done():
                    changed = asyncio.ensure_future(self._changed.wait())
                    try:
                        await asyncio.wait({changed, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        changed.cancel()
        except TimeoutError:
            pass
        finally:
            leaving.cancel()
        empty = self._empty.get(node)
        if empty is None or not self._is_idle(node):
            return None
        return empty.content, empty.headers

    async def watch(self) -> None:
        """Looks for new marks until it is cancelled, and wakes the polls that wait."""
        while True:
            await asyncio.sleep(LOOK)
            self._look()

    def _look(self) -> None:
        if self.marks.refresh():
            self._changed.set()
            self._changed = asyncio.Event()

    def _is_idle(self, node: int) -> bool:
        empty = self._empty.get(node)
        return (
            empty is not None
            and self.marks.of(node) == empty.mark
            and self.clock() - empty.at < ASK_ANYWAY
        )


async def _disconnected(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    """Waits until the connection of a request ends."""
    while (await receive())["type"] != "http.disconnect":
        pass
