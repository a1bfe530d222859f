"""The right to release one round's bytes, given when the round was charged."""

from __future__ import annotations

from typing import Protocol

from cloister.ledger.charge import Released


class Releasing(Protocol):
    """A ledger that writes releases."""

    def write_release(self, seq: int, payload: bytes, time: str | None) -> Released:
        """Writes the release of the charge with this entry's number."""


class Reservation:
    """The right to release one round's bytes, once.

    The release's entry has the time of the charge, because the time that the round took depends on
    the records, and others see the ledger.
    """

    def __init__(self, ledger: Releasing, seq: int, time: str | None = None) -> None:
        self._ledger = ledger
        self._seq = seq
        self._time = time

    @property
    def place(self) -> tuple[int, str | None]:
        """Returns the charge's entry and its time, of which another process makes the same right
        (`simulation.far_files`)."""
        return self._seq, self._time

    def release(self, payload: bytes) -> Released:
        """Writes the release to the ledger; the bytes may leave when this returns.

        Raises:
            LedgerError: It could not be written and synced, or this reservation was used already;
                then nothing may leave.
        """
        return self._ledger.write_release(self._seq, payload, self._time)
