"""Makes and opens the ledger of a site's data set, at the place in `site.toml`."""

from __future__ import annotations

import json

from cloister.client.site_file import SiteFile
from cloister.errors import BadFileError, LedgerError
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger, key_file
from cloister.ledger.signing import load_key
from cloister.ledger.storage import LedgerFile
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit


def is_begun(file: SiteFile) -> bool:
    """Whether the data set's ledger exists."""
    return LedgerFile(file.ledger).is_begun


def begin_ledger(file: SiteFile) -> Ledger:
    """Makes the data set's ledger with the policy's budget, or opens an existing one.

    Its first values stay for the data set's lifetime, so `cloister site init` first reads the
    records and asks the operator to confirm.

    Raises:
        LedgerError: It cannot be made, or is invalid.
        BadFileError: The existing ledger has other values.
    """
    if is_begun(file):
        return open_ledger(file)
    return Ledger.create(
        file.ledger, file.policy.lifetime, file.policy.privacy.unit, person=_person(file)
    )


def _person(file: SiteFile) -> str | None:
    """The column of persons; None if records are the units."""
    privacy = file.policy.privacy
    return privacy.person if privacy.unit is Unit.PERSON else None


def open_ledger(file: SiteFile) -> Ledger:
    """Opens the data set's ledger.

    Raises:
        LedgerError: There is no ledger, or it is invalid.
        BadFileError: `site.toml` has another budget, unit or column of persons than the ledger.

    Guarantees:
        File and ledger have the same values, whichever one a caller uses.
    """
    if not is_begun(file):
        raise LedgerError(f"{file.ledger}: no ledger yet; cloister site init {file.path} begins it")
    load_key(key_file(file.ledger))
    ledger = Ledger(file.ledger)
    problems = contradictions(file, ledger)
    if problems:
        raise BadFileError("\n".join(f"{file.path}: {problem}" for problem in problems))
    return ledger


def check_covered(file: SiteFile, study: str, plan: Plan) -> bool:
    """Checks that the data set's ledger, if it exists, covers a study's first round.

    Args:
        file: The site's.
        study: Digest of the study's recipe.
        plan: The plan that the site would run.

    Returns:
        Whether the ledger exists; nothing is charged.

    Raises:
        LedgerError: It is invalid.
        BadFileError: `site.toml` contradicts it.
        RefusedError: The plan has another unit, or a larger δ.
        BudgetError: The budget does not cover it.
    """
    if not is_begun(file):
        return False
    open_ledger(file).check(Charge.first(study, plan))
    return True


def contradictions(file: SiteFile, ledger: Ledger) -> list[str]:
    """The values in which `site.toml` contradicts the ledger, one line each."""
    pairs: dict[str, tuple[object, object]] = {
        "budget.epsilon": (file.policy.budget.epsilon, ledger.budget.epsilon),
        "budget.delta": (file.policy.budget.delta, ledger.budget.delta),
        "privacy.unit": (file.policy.privacy.unit.value, ledger.unit.value),
    }
    if ledger.person is not None and file.policy.privacy.unit is Unit.PERSON:
        pairs["privacy.person"] = (file.policy.privacy.person, ledger.person)
    return [
        f"{key}: {said} in the file, but the data set's ledger ({file.ledger.name}) was begun with "
        f"{begun}, which never changes; write {key} = {_toml(begun)} into the file again"
        for key, (said, begun) in pairs.items()
        if said != begun
    ]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
