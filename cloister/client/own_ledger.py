"""The ledger of a site's data set, at the place that `site.toml` names: begun once, then opened."""

from __future__ import annotations

from cloister.client.site_file import SiteFile
from cloister.errors import LedgerError
from cloister.privacy.keys import load_key
from cloister.privacy.ledger import Ledger, key_file
from cloister.privacy.ledger_file import LedgerFile


def begin_ledger(file: SiteFile) -> Ledger:
    """Begins the data set's ledger under the policy's budget, or opens the one that is there.

    Raises:
        LedgerError: It cannot be begun, or is not sound.
    """
    if LedgerFile(file.ledger).is_begun:
        return Ledger(file.ledger)
    return Ledger.create(file.ledger, file.policy.lifetime, file.policy.privacy.unit)


def open_ledger(file: SiteFile) -> Ledger:
    """Opens the data set's ledger.

    Raises:
        LedgerError: It was not begun, or is not sound.
    """
    if not LedgerFile(file.ledger).is_begun:
        raise LedgerError(f"{file.ledger}: no ledger yet; cloister site init {file.path} begins it")
    load_key(key_file(file.ledger))
    return Ledger(file.ledger)
