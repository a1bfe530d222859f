"""Checks a ledger from its entries alone: chain, signatures and budget, and recomputes ε.

ε is recomputed from the events by two accountants, and the budget's rule is applied to each charge
again. The ε that the last charge states is compared; no rule uses the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cloister.canonical import json_number
from cloister.errors import LedgerError
from cloister.ledger import stated
from cloister.ledger.budget import MACHINES_DIFFER, Spending, fits, is_within, rounded_up
from cloister.ledger.chain import Entry, Head, check_anchor, follow
from cloister.ledger.history import History
from cloister.ledger.stated import Stated
from cloister.names import counted
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon

# Largest difference between an entry's ε and the recomputed one.
TOLERANCE = MACHINES_DIFFER


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of verifying a ledger.

    Attributes:
        head: Its head.
        public_key: The key that signed it, in hex.
        charges: Rounds, evaluations and votes charged.
        releases: Those released.
        steps: Noisy steps charged: of rounds, private evaluations and votes.
        epsilon_pld: ε of all steps so far, per unit added or removed, by PLD: an indication.
        epsilon_rdp: The same by RDP.
        delta: δ of both: the smallest that a charge stated.
        budget_epsilon: ε of the lifetime budget.
        budget_delta: δ of the lifetime budget.
        unit: The unit whose presence is hidden.
        history: The state after its entries.
    """

    head: Head
    public_key: str
    charges: int
    releases: int
    steps: int
    epsilon_pld: float
    epsilon_rdp: float
    delta: float
    budget_epsilon: float
    budget_delta: float
    unit: str
    history: History = field(compare=False)

    @property
    def charged(self) -> str:
        """What was charged, in words: rounds, and private evaluations and votes if there are."""
        evaluations, votes = len(self.history.evaluations), len(self.history.votes)
        rounds = self.charges - evaluations - votes
        said = [counted(rounds, "round")] if rounds or not (evaluations or votes) else []
        said += [counted(evaluations, "evaluation")] if evaluations else []
        said += [counted(votes, "vote")] if votes else []
        return " and ".join(said)

    @property
    def promise(self) -> Stated:
        """The promised ε: its whole plan's, or the budget's."""
        return stated.promise(self.history)

    @property
    def promise_alone(self) -> Stated | None:
        """`promise` against the coordinator with all other sites; None: the same as `promise`."""
        return stated.promise_alone(self.history)

    @property
    def spent(self) -> Stated:
        """What was spent so far, at the δ that compares with `promise`; an indication."""
        return stated.spent(self.history)

    @property
    def used(self) -> Stated:
        """What was spent so far of the budget, at half of its δ; an indication."""
        return stated.used(self.history)

    @property
    def of_budget(self) -> str:
        """`used` beside the budget's ε, at one δ, in words."""
        return stated.of_budget_used(self.used, self.history.budget)


def verify(
    entries: Sequence[Entry],
    name: str,
    *,
    public_key: str | None = None,
    anchors: Sequence[Head] = (),
) -> Verdict:
    """Verifies a whole ledger: chain, signatures, budget and every ε.

    Args:
        entries: All entries, oldest first.
        name: The ledger's name, for messages.
        public_key: The site's key in hex, from another source. None: the one that the ledger names,
            which only shows that one key signed all entries.
        anchors: Earlier heads of the ledger.

    Raises:
        LedgerError: An entry is damaged, out of order, badly signed or beyond the budget, or the
            last charge's ε does not follow from the events; or an anchor is not in the chain.
    """
    if not entries:
        raise LedgerError(f"{name}: no entry")
    history = History()
    try:
        for number, entry in enumerate(entries):
            before = None if number == 0 else _copy(history.spent)
            request = history.add(entry)
            if number == 0 and public_key not in (None, history.public_key):
                raise LedgerError(
                    f"made with the key {history.public_key[:12]}…, not the given one"
                )
            if request and before:
                budget, terms = rounded_up(history.budget), history.spent.terms
                assert terms is not None  # the charge was added
                if before.terms is None and not is_within(request, terms, budget):
                    raise LedgerError(f"entry {number}: states more steps than the budget covers")
                if not fits(request, before, budget, terms):
                    raise LedgerError(f"entry {number}: charged beyond the budget")
        follow(entries, None, history.public_key)
        for anchor in anchors:
            check_anchor(entries, anchor, name)
        pld, rdp, delta = _recomputed(entries, history)
    except LedgerError as error:
        raise LedgerError(f"{name}: {error}; nothing may be released on it") from error
    return Verdict(
        head=history.head,
        public_key=history.public_key,
        charges=len(history.rounds) + len(history.evaluations) + len(history.votes),
        releases=len(history.released),
        steps=history.spent.total_steps,
        epsilon_pld=pld,
        epsilon_rdp=rdp,
        delta=delta,
        budget_epsilon=history.budget.epsilon,
        budget_delta=history.budget.delta,
        unit=history.unit.value,
        history=history,
    )


def _copy(spent: Spending) -> Spending:
    return replace(
        spent,
        steps=dict(spent.steps),
        plans=dict(spent.plans),
        by_kind=dict(spent.by_kind),
    )


def _recomputed(entries: Sequence[Entry], history: History) -> tuple[float, float, float]:
    """ε of everything by two accountants; the last charge must state the same."""
    charges = [fields for entry in entries if (fields := entry.fields)["kind"] == "reserve"]
    delta = min((float(charge["delta"]) for charge in charges), default=history.budget.delta)
    events = history.spent.events
    if charges:
        last = charges[-1]
        at = float(last["delta"])
        recomputed = {"pld": epsilon(events, at, COARSE), "rdp": rdp_epsilon(events, at)}
        for accountant, value in recomputed.items():
            found, given = json_number(value), last["epsilon"].get(accountant)
            if type(given) is not type(found) or abs((found or 0) - (given or 0)) > TOLERANCE:
                raise LedgerError(
                    f"its last charge states an epsilon of {given} by {accountant.upper()}; its "
                    f"events give {found}"
                )
    return epsilon(events, delta), rdp_epsilon(events, delta), delta
