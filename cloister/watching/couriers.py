"""Delivers the outbox in one thread for each address, so that no address waits for another.

The main loop owns the outbox: it gives an entry to a thread and takes the result when it comes. A
thread that hangs blocks its own address only.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from cloister.watching.alert_delivery import Send
from cloister.watching.outbox import Outbox, Waiting, next_due, with_result


class Couriers:
    """The threads that deliver, one for each address.

    Args:
        senders: The senders by address.
        say: Is called with messages for the operator.
    """

    def __init__(self, senders: Mapping[str, Send], say: Callable[[str], None]) -> None:
        self._say = say
        self._results: queue.Queue[tuple[Waiting, str | None]] = queue.Queue()
        self._tasks: dict[str, queue.Queue[Waiting | None]] = {}
        self._busy: set[str] = set()
        for address, send in senders.items():
            self._tasks[address] = queue.Queue()
            arguments = (self._tasks[address], send)
            threading.Thread(target=self._carry, args=arguments, daemon=True).start()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Returns the addresses of the watch file."""
        return tuple(self._tasks)

    @property
    def is_busy(self) -> bool:
        """Returns whether a delivery is running."""
        return bool(self._busy)

    def exchange(self, outbox: Outbox, now: float, wait: float = 0.0) -> Outbox:
        """Takes results, and starts the deliveries that are due.

        Args:
            outbox: The waiting alerts.
            now: The time in seconds since 1970.
            wait: Seconds to wait for a first result, if a delivery is running.

        Returns:
            The outbox after the results.
        """
        while True:
            try:
                entry, why = self._results.get(timeout=wait if wait and self._busy else 1e-9)
            except queue.Empty:
                break
            wait = 0.0
            self._busy.discard(entry.address)
            outbox = with_result(outbox, entry, why, now)
            if why is not None and entry.tries == 0:
                self._say(f"{entry.address}: an alert did not arrive ({why}); it is tried again")
            elif why is None and entry.tries:
                self._say(f"{entry.address}: an alert arrived after {entry.tries + 1} tries")
        for address, tasks in self._tasks.items():
            entry_due = None if address in self._busy else next_due(outbox, address, now)
            if entry_due is not None:
                self._busy.add(address)
                tasks.put(entry_due)
        return outbox

    def without_strangers(self, outbox: Outbox) -> Outbox:
        """Drops alerts for addresses that the watch file no longer names, without sending them."""
        waiting = {key: one for key, one in outbox.waiting.items() if one.address in self._tasks}
        gone = len(outbox.waiting) - len(waiting)
        if gone:
            self._say(
                f"{gone} waiting alerts are dropped: the watch file no longer names their addresses"
            )
        return replace(outbox, waiting=waiting)

    def close(self) -> None:
        """Asks the threads to end; one that hangs ends with the process."""
        for tasks in self._tasks.values():
            tasks.put(None)

    def _carry(self, tasks: queue.Queue[Waiting | None], send: Send) -> None:
        while (entry := tasks.get()) is not None:
            try:
                why = send(entry.alert)
            except Exception as error:  # whatever a receiver provokes, the next alert is sent
                why = type(error).__name__
            self._results.put((entry, why))
