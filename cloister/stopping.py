"""A request to stop, which a signal's handler may make."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class Stop:
    """A flag that can be set once and waited for, like `threading.Event`.

    Guarantees:
        `set` may be called in a signal's handler at any moment. An Event's cannot: it takes a lock,
        and if the handler interrupted a wait that has it, both wait for ever. A put into a
        SimpleQueue takes none that an interrupted get holds (Python's documentation, `queue`).
    """

    def __init__(self) -> None:
        self._is_set = False
        self._woken: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Asks to stop."""
        self._is_set = True
        self._woken.put(None)

    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._is_set

    def wait(self, timeout: float) -> bool:
        """Waits until somebody asks to stop, for at most this time in seconds.

        Returns:
            Whether somebody did.
        """
        if not self._is_set:
            with suppress(Empty):
                self._woken.get(timeout=timeout)
                self._woken.put(None)  # for another thread that waits
        return self._is_set
