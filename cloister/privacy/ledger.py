"""A site's ledger: one JSON line for each charge and each release, synced before it counts.

A charge is written and synced before the first batch of its round is drawn, so that a crash at any
later point leaves it spent. Charges are never refunded; ε is computed from them on demand.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.errors import LedgerError
from cloister.privacy.accounting import epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan


@dataclass(frozen=True)
class Charge:
    """What one round cost, as read back from a ledger."""

    round: int
    event: GaussianEvent


class Ledger:
    """An append-only file of charges and releases.

    Args:
        path: A JSONL file; made when the first line is written.

    Raises:
        LedgerError: An existing file cannot be read line by line; nothing is written to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read(path)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Everything ever charged, oldest first."""
        return tuple(
            Charge(entry["round"], GaussianEvent(**entry["event"]))
            for entry in self._entries
            if entry["kind"] == "charge"
        )

    def epsilon(self, delta: float) -> float:
        """ε of everything charged, per record added or removed."""
        return epsilon([charge.event for charge in self.charges], delta)

    def charge(self, plan: Plan, round_number: int, *, is_private: bool) -> None:
        """Charges one round in full, before anything is drawn.

        Args:
            plan: What will run.
            round_number: Which round of the study.
            is_private: Whether its randomness is unpredictable; otherwise it is charged as ε = ∞.

        Raises:
            LedgerError: The line could not be written and synced; then nothing may be drawn.
        """
        event = plan.event(plan.local_steps)
        self._append(
            kind="charge",
            round=round_number,
            plan=plan.digest(),
            unit=plan.unit,
            neighbouring=plan.neighbouring,
            delta=plan.delta,
            event=asdict(event) | {"is_private": event.is_private and is_private},
        )

    def sent(self, round_number: int, payload: str, size: int) -> None:
        """Notes what left: the message's SHA-256 and its bytes."""
        self._append(kind="sent", round=round_number, sha256=payload, bytes=size)

    def _append(self, **entry: Any) -> None:
        line = json.dumps({"seq": len(self._entries), **entry}, sort_keys=True)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            if not self._entries:
                _sync_folder(self._path.parent)
        except OSError as error:
            raise LedgerError(
                f"{self._path}: cannot be written ({error}); nothing is drawn or sent without "
                "its ledger line: free space or mend the permissions, then start again"
            ) from error
        self._entries.append(json.loads(line))


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name durable too: a synced file in an unsynced folder can vanish."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines):
            entry = json.loads(line)
            if not line.endswith("\n") or entry["seq"] != number:
                raise ValueError("out of sequence or cut off")
            if entry["kind"] == "charge":
                GaussianEvent(**entry["event"])
            entries.append(entry)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path}: line {len(entries) + 1} cannot be read ({error}); the budget spent is "
            "unknown, so nothing is released: restore the file from a backup"
        ) from error
    return entries
