"""Limits on one member's requests at a time, and on large bodies in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

# Requests of one member in work; a SuperNode has a poll, a heartbeat and two objects under way.
MOST_REQUESTS = 8
# Bodies of one member in memory that are larger than this; Flower's SuperNode pushes two objects
# at a time.
LARGE, MOST_LARGE = 1_000_000, 2


@dataclass
class _Turns:
    requests: int = 0
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LARGE))


class Turns:
    """How many requests of each member are being answered."""

    def __init__(self) -> None:
        self._sites: dict[str, _Turns] = {}

    @contextmanager
    def request(self, site: str) -> Iterator[bool]:
        """Holds one of a member's turns while its request is answered.

        Yields:
            Whether it is taken up; not where the member has as many in work as it may.
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
        """A body of a member's request that was taken up; large ones wait for their turn.

        Args:
            site: The member.
            size: Bytes, as declared.
        """
        if size <= LARGE:
            yield
            return
        async with self._sites[site].large:
            yield
