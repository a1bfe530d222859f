"""Opens each ledger of a simulation once in a process.

Opening one reads all of its entries and checks their chain and signatures, so opening it for every
message takes time that grows with the square of the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.ledger.ledger import Ledger


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

    def __reduce__(self) -> tuple[type[OpenLedgers], tuple[Any, ...]]:
        return OpenLedgers, ()
