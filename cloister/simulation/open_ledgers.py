"""The files that simulated sites write, and opens each ledger once in a process.

Opening a ledger reads all of its entries and checks their chain and signatures, so opening it for
every message takes time that grows with the square of the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloister.client.personal import PersonalAdapter
from cloister.ledger.ledger import Ledger, key_file
from cloister.ledger.signing import load_key, public_hex


class SiteFiles(Protocol):
    """Gives a process the ledgers of its sites, and what stands beside them."""

    def __call__(self, path: Path) -> Ledger:
        """Returns a ledger with all entries that its file has now."""

    def public_key(self, path: Path) -> str:
        """Returns the public key of a ledger, which need not be of a site of this process."""

    def personal(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's own factors in a study."""

    def optimizer(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's optimizer memory in a study."""


@dataclass
class OpenLedgers:
    """The ledgers that this process has open, by path.

    Sent to another process it opens them there again.
    """

    _opened: dict[Path, Ledger] = field(default_factory=dict)

    def __call__(self, path: Path) -> Ledger:
        """Returns a ledger with all entries that its file has now.

        Raises:
            LedgerError: The ledger or its key is missing or damaged, or an entry that was read
                before is missing or different now.
        """
        if path in self._opened:
            self._opened[path].refresh()
        else:
            self._opened[path] = Ledger(path)
        return self._opened[path]

    def public_key(self, path: Path) -> str:
        """Returns the public key of a ledger; reads the key's file alone."""
        return public_hex(load_key(key_file(path)))

    def personal(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's own factors, beside its ledger."""
        return PersonalAdapter.beside(path, study)

    def optimizer(self, path: Path, study: str) -> PersonalAdapter:
        """Returns what stores a site's optimizer memory, beside its ledger."""
        return PersonalAdapter.of_optimizer(path, study)

    def __reduce__(self) -> tuple[type[OpenLedgers], tuple[Any, ...]]:
        return OpenLedgers, ()
