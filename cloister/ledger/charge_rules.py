"""What a charge must have in common with its ledger, whatever the budget still covers."""

from __future__ import annotations

from cloister.errors import RefusedError, RoundSpentError
from cloister.ledger.charge import Charge
from cloister.ledger.history import History, Reserved


def check_terms(charge: Charge, history: History, path: str) -> None:
    """Refuses a charge whose plan or key of units does not fit the ledger.

    Args:
        charge: The charge; its key of units may be left out.
        history: The ledger's.
        path: Its path, for messages.

    Raises:
        RefusedError: The plan's unit differs from the ledger's, its δ is above the budget's, or
            units had their groups by another key.
    """
    if charge.plan.unit is not history.unit:
        raise RefusedError(
            f"the plan's unit is {charge.plan.unit}, the ledger's {history.unit}: "
            "ask for a plan with the ledger's unit"
        )
    if charge.plan.delta > history.budget.delta:
        raise RefusedError(
            f"the plan states delta {charge.plan.delta:g}, the data set's budget is at "
            f"{history.budget.delta:g}: ask for a plan with a smaller delta"
        )
    if charge.plan.bands and charge.units and history.unit_key not in ("", charge.units):
        raise RefusedError(
            f"{path}: units were grouped by another key before; a unit would be in two groups: "
            "restore the key from a backup, or take no part in studies with privacy.noise_bands"
        )


def check_again(before: Reserved, charge: Charge, *, is_released: bool) -> None:
    """Refuses to answer a round that was charged before, unless the answer is the same.

    Args:
        before: The round's earlier charge.
        charge: What is asked now.
        is_released: Whether the earlier charge was released.

    Raises:
        RefusedError: It was asked with another plan or adapter.
        RoundSpentError: It was interrupted, and a second try would draw other noise.
    """
    if (before.plan, before.request) != (charge.plan.digest(), charge.request):
        raise RefusedError(
            f"round {charge.round} was asked before with another plan or adapter; a round "
            "is answered once: ask for the next one"
        )
    if not is_released and (before.event.is_private or charge.plan.bands):
        raise RoundSpentError(
            f"round {charge.round} was charged and interrupted before its release; it stays spent: "
            "go on with the next one"
        )


def check_kind(charge: Charge) -> None:
    """Refuses to charge a round of correlated noise whose units have no groups, and a kind of
    release that the plan does not list.

    Raises:
        RefusedError: The charge states no key of units, or the plan lists no such release.
    """
    if charge.plan.bands and not charge.units:
        raise RefusedError("the plan's noise is correlated, and the units have no groups here")
    if charge.kind not in dict(charge.plan.listed):
        raise RefusedError(f"a release for {charge.kind} was asked, which the plan does not list")


def check_moment(charge: Charge, history: History) -> None:
    """Refuses a round after its evaluation, and an evaluation or vote at another than its moment.

    Raises:
        RefusedError: The moment is over, or is no declared one.
    """
    problem = history.untimely(charge.plan, charge.study, charge.round, charge.kind)
    if problem is not None:
        raise RefusedError(f"{problem}; nothing was charged: ask for the next round")
