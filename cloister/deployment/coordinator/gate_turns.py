"""Limits on one member's requests at a time, and on large bodies in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

# Most requests of one member at a time; a SuperNode has a poll, a heartbeat and two objects.
MOST_REQUESTS = 8
# Most large bodies of one member in memory, and the size from which a body is large; Flower's
# SuperNode pushes two objects at a time.
LARGE, MOST_LARGE = 1_000_000, 2


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
