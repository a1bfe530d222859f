"""Small plans, charges and ledgers."""

from dataclasses import replace
from pathlib import Path

from cloister.ledger.budget import Budget
from cloister.ledger.charge import Charge, Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.privacy.accounting import FINE, epsilon
from cloister.privacy.bands import coefficients
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Unit
from cloister.privacy.votes import HISTOGRAM

SHARING = Sharing(sites=5, missing=1, colluding=1)
WIDE = Budget(epsilon=50.0, delta=2e-5)


def small_plan(noise_multiplier: float = 1.0, num_rounds: int = 4) -> Plan:
    """Five steps a round at a sample rate of 0.1."""
    return Plan(
        public_records=100,
        expected_batch_size=10,
        local_steps=5,
        num_rounds=num_rounds,
        noise_multiplier=noise_multiplier,
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-5,
    )


def shared_plan(noise_multiplier: float = 1.0) -> Plan:
    """The same with its noise shared, by three honest sites of a sum at least."""
    return replace(small_plan(noise_multiplier), sharing=SHARING)


def banded_plan(noise_multiplier: float = 1.0, num_rounds: int = 9) -> Plan:
    """One step a round at a rate of 0.3 in each of three groups, with correlated noise."""
    return replace(
        small_plan(noise_multiplier, num_rounds), local_steps=1, bands=coefficients(3, num_rounds)
    )


def evaluated_plan(noise_multiplier: float = 1.0, rounds: tuple[int, ...] = (2, 4)) -> Plan:
    """The small plan with private evaluations."""
    evaluations = Evaluations(rounds=rounds, noise_multiplier=noise_multiplier)
    return replace(small_plan(), evaluations=evaluations)


def voting_plan(noise_multiplier: float = 4.0, num_rounds: int = 3, candidates: int = 6) -> Plan:
    """Every unit of a hundred votes among the candidates, once a round."""
    return Plan(
        public_records=100,
        expected_batch_size=100,
        local_steps=1,
        num_rounds=num_rounds,
        noise_multiplier=noise_multiplier,
        max_grad_norm=1.0,
        max_update_norm=None,
        delta=1e-5,
        votes=candidates,
        message=((HISTOGRAM, (candidates,)),),
    )


def charge(
    number: int,
    plan: Plan | None = None,
    *,
    study: str = "study",
    is_private: bool = True,
    units: str = "",
    kind: ReleaseKind = ReleaseKind.TRAINING,
) -> Charge:
    """One round of a study."""
    return Charge(
        study=study,
        round=number,
        plan=plan or small_plan(),
        request=f"adapter {number}",
        is_private=is_private,
        units=units,
        kind=kind,
    )


def new_ledger(path: Path, budget: Budget = WIDE) -> Ledger:
    """A ledger that has charged nothing."""
    return Ledger.create(path, budget, Unit.RECORD)


def reserved(ledger: Ledger, number: int, plan: Plan | None = None) -> Reservation:
    """A reservation of one round."""
    granted = ledger.reserve(charge(number, plan))
    assert isinstance(granted, Reservation)
    return granted


def run_round(ledger: Ledger, number: int, plan: Plan | None = None) -> Released:
    """Charges and releases one round."""
    return reserved(ledger, number, plan).release(f"bytes {number}".encode())


def odometer(ledger: Ledger, delta: float, grid: float = FINE) -> float:
    """Computes ε of the steps that a ledger charged so far (an odometer reading)."""
    return epsilon(ledger._history.spent.events, delta, grid)
