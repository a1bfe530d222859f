"""A ledger's facts for pages: verified, every ε recomputed, cached until its file changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cloister.errors import BadFileError
from cloister.ledger.chain import Entry
from cloister.ledger.replay import ChargedRound, Forecast, charged_rounds, forecast
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import Verdict, verify

# Ledgers whose figures are kept; recomputing ε takes seconds.
KEPT = 64
_computing = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """What pages show of one ledger, verified anew.

    Attributes:
        name: The site's, or the file's.
        entries: How many it has.
        verdict: What the check said.
        rounds: Every charge.
        ahead: What the budget affords of the plan charged last.
        last: Time of the last entry, as the site states it.
        key_known: Whether its key was had from elsewhere than the ledger.
    """

    name: str
    entries: int
    verdict: Verdict = field(repr=False)
    rounds: tuple[ChargedRound, ...] = field(repr=False)
    ahead: Forecast | None = field(repr=False)
    last: str
    key_known: bool

    @property
    def studies(self) -> tuple[str, ...]:
        """Returns the digests of the studies that it charged, oldest first."""
        return tuple(dict.fromkeys(charged.study for charged in self.rounds))


def facts_of(name: str, entries: Sequence[Entry], public_key: str | None = None) -> LedgerFacts:
    """Checks a ledger and recomputes what it says.

    Args:
        name: Of it.
        entries: All of it.
        public_key: The site's in hex, known from elsewhere.

    Raises:
        LedgerError: It is not sound.
    """
    verdict = verify(entries, name, public_key=public_key)
    return LedgerFacts(
        name=name,
        entries=len(entries),
        verdict=verdict,
        rounds=charged_rounds(entries, verdict.history),
        ahead=forecast(verdict.history),
        last=str(entries[-1].fields["time"]),
        key_known=public_key is not None,
    )


def read_ledger(path: Path, name: str, public_key: str | None = None) -> LedgerFacts:
    """Returns a ledger's facts; computed once for each state of its file.

    Raises:
        LedgerError: It is missing or not sound.
        BadFileError: It cannot be looked at.
    """
    try:
        status = path.stat() if path.exists() else None
    except OSError as error:
        raise BadFileError(f"{path}: cannot be looked at ({error})") from error
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino) if status else (0, 0, 0)
    with _computing:  # two readers of one ledger wait for one computation
        return _read(path, name, public_key, stamp)


@lru_cache(maxsize=KEPT)
def _read(
    path: Path, name: str, public_key: str | None, stamp: tuple[int, int, int]
) -> LedgerFacts:
    """Computes the facts; the stamp only keeps cached results of older files apart."""
    return facts_of(name, LedgerFile(path).entries(), public_key)
