"""Limits on one member's requests and large bodies at a time, and on the SuperLink's calls."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

# Most requests of one member at a time; a SuperNode has a poll, a heartbeat and two objects.
MOST_REQUESTS = 8
# Most large bodies of one member in memory, and the size from which a body is large; Flower's
# SuperNode pushes two objects at a time.
LARGE, MOST_LARGE = 1_000_000, 2

# Most calls of which the SuperLink is working on the answer. Each writes to its database, which has
# one writer, and one that waits 5 s for its turn fails; the executor's calls need turns, too.
MOST_FORWARDED = 16
# Seconds for which a call waits for its turn: a third of those after which a SuperNode gives it up.
# Later, the SuperLink would take a question for delivered that nobody reads any more.
LONGEST_WAIT = 10.0


@dataclass
class _Turns:
    requests: int = 0
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LARGE))


class Turns:
    """Counts the requests of each member that are being answered."""

    def __init__(self) -> None:
        self._sites: dict[str, _Turns] = {}

    @contextmanager
    def request(self, site: str) -> Iterator[bool]:
        """Holds one of a member's turns while its request is answered.

        Yields:
            Whether the request may be answered: not if the member has its most.
        """
        turns = self._sites.setdefault(site, _Turns())
        if turns.requests >= MOST_REQUESTS:
            yield False
            return
        turns.requests += 1
        try:
            yield True
        finally:
            turns.requests -= 1
            if not turns.requests:
                self._sites.pop(site, None)

    @asynccontextmanager
    async def body(self, site: str, size: int) -> AsyncIterator[None]:
        """Holds the memory of a request's body; large ones wait for their turn.

        Args:
            site: The member.
            size: Declared bytes.
        """
        if size <= LARGE:
            yield
            return
        async with self._sites[site].large:
            yield


# Which waiting call has the next turn: one that ends an exchange before one that goes on with it,
# and that before a poll, which begins one. So replies come whole, one after the other, where many
# sites answer at once. Calls that are not listed are rare and keep a node connected: rank 0.
RANKS: Mapping[str, int] = {
    "push-object": 1,
    "push-messages": 2,
    "confirm-message-received": 3,
    "pull-object": 3,
    "pull-messages": 4,
}
# Seconds by which a call of the next rank counts as having come later. A flood of calls of an
# earlier rank delays others by this and no more: a poll by 8 s, less than `LONGEST_WAIT`.
HANDICAP = 2.0


class Line:
    """The calls that wait for the SuperLink.

    Args:
        most: Most calls at a time.
        wait: Seconds for which one waits.
        clock: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        most: int = MOST_FORWARDED,
        wait: float = LONGEST_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free, self._wait, self._clock = most, wait, clock
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @asynccontextmanager
    async def turn(self, rank: int = 0) -> AsyncIterator[bool]:
        """Holds one of the SuperLink's turns.

        Args:
            rank: Who came first is next, if a rank counts as `HANDICAP` seconds that one came
                later.

        Yields:
            Whether there was one in time.
        """
        if self._free:
            self._free -= 1
        elif not await self._come(rank):
            yield False
            return
        try:
            yield True
        finally:
            self._next()

    async def _come(self, rank: int) -> bool:
        """Waits for a turn; returns whether it came in time."""
        mine = asyncio.get_running_loop().create_future()
        at = self._clock() + rank * HANDICAP
        heapq.heappush(self._waiting, (at, next(self._numbers), mine))
        try:
            async with asyncio.timeout(self._wait):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():  # it came just now, for nobody
                self._next()
            if not isinstance(error, TimeoutError):
                raise
            return False
        return True

    def _next(self) -> None:
        """Gives a turn that became free to the next one who still waits."""
        while self._waiting:
            *_, first = heapq.heappop(self._waiting)
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
