"""Reads a ledger's facts for pages: verifies it, recomputes every ε, and caches the result."""

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

# Ledgers whose figures are cached; recomputing ε takes seconds.
KEPT = 64
_computing = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """The facts of one ledger for pages, after it was verified again.

    Attributes:
        name: The site's name, or the file's.
        entries: Number of entries.
        verdict: The result of the check.
        rounds: All charges.
        ahead: The rounds of the last charged plan that the budget still covers.
        last: Time of the last entry, as the site states it.
        key_known: Whether its key came from another source than the ledger.
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
    """Checks a ledger and recomputes its figures.

    Args:
        name: Its name.
        entries: All of its entries.
        public_key: The site's public key in hex, from another source.

    Raises:
        LedgerError: It is not valid.
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
    """Returns a ledger's facts, computed once for each version of its file.

    Raises:
        LedgerError: It is missing or not valid.
        BadFileError: It cannot be read.
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
