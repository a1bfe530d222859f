"""`cloister.epsilon`: ε of subsampled Gaussian steps, with unit, δ, accountant and adversary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from cloister.bounds import shortened
from cloister.canonical import json_number
from cloister.errors import RefusedError, UsageError
from cloister.ledger.stated import Stated, shown
from cloister.privacy.units import Neighbouring, Unit

Accountant = Literal["pld", "rdp", "prv"]
# Noise multiplier, sample rate, and number of steps.
Steps = tuple[float, float, int]


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """An ε with everything that it needs to be understood; `float()` returns the number.

    Attributes:
        epsilon: ε; ∞: nothing is protected.
        delta: δ.
        unit: The privacy unit, whose presence is protected.
        neighbouring: The definition of neighbouring data sets.
        accountant: The accountant that computed ε.
        against: The adversary against whom it holds, in words.
        of_what: What it is the ε of, and whether it is a promise, in words; empty: the given steps.
    """

    epsilon: float
    delta: float
    unit: Unit = Unit.RECORD
    neighbouring: Neighbouring = Neighbouring.ADD_REMOVE
    accountant: str = "pld"
    against: str = "whoever sees every step"
    of_what: str = ""

    @classmethod
    def of(cls, stated: Stated) -> Epsilon:
        """Returns an ε of a ledger or plan as this value."""
        return cls(
            epsilon=stated.epsilon,
            delta=stated.delta,
            unit=stated.unit,
            neighbouring=stated.neighbouring,
            accountant=stated.accountant.value,
            against=stated.against,
            of_what=stated.of_what,
        )

    def __float__(self) -> float:
        return self.epsilon

    def __str__(self) -> str:
        known = self.accountant.upper() if "-" not in self.accountant else self.accountant
        return (
            f"ε = {shown(self.epsilon)} at δ = {self.delta:g}, for one {self.unit} added or "
            f"removed, by {known}, against {self.against}"
            + (f": {self.of_what}" if self.of_what else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values; ∞ is null."""
        return {
            "epsilon": json_number(self.epsilon),
            "delta": self.delta,
            "accountant": self.accountant,
            "neighbouring": self.neighbouring.value,
        }


def epsilon(
    *,
    noise_multiplier: float | None = None,
    sample_rate: float | None = None,
    steps: int | None = None,
    delta: float = 1e-5,
    events: Iterable[Steps] = (),
    accountant: Accountant = "pld",
    unit: Unit | str = Unit.RECORD,
) -> Epsilon:
    """Computes ε of Poisson-subsampled Gaussian steps, for one unit added or removed.

    >>> import cloister as cl
    >>> spent = cl.epsilon(noise_multiplier=1.1, sample_rate=0.02, steps=1000, delta=1e-5)
    >>> print(spent)  # doctest: +ELLIPSIS
    ε = 3.2501 at δ = 1e-05, for one record added or removed, by PLD, against whoever sees every...
    >>> float(spent) < 3.3
    True

    Args:
        noise_multiplier: Standard deviation of the noise over the clip bound.
        sample_rate: Probability that a unit is in a batch.
        steps: Number of steps.
        delta: δ of the guarantee.
        events: Further steps to compose: noise multiplier, sample rate and number of each.
        accountant: `pld` is the value that Cloister reports; `rdp` and `prv` are for comparison.
        unit: The privacy unit: what is sampled with `sample_rate`.

    Raises:
        UsageError: A value is missing or out of its range.
        RefusedError: The accountants disagree, or `prv` does not converge.
    """
    from cloister.privacy.accounting import cross_check, prv_epsilon, rdp_epsilon
    from cloister.privacy.events import GaussianEvent

    given = _triples(events)
    single = (noise_multiplier, sample_rate, steps)
    if noise_multiplier is not None and sample_rate is not None and steps is not None:
        given.insert(0, (noise_multiplier, sample_rate, steps))
    elif single != (None, None, None) or not given:
        raise UsageError("noise_multiplier, sample_rate and steps: give all three, or events")
    if not 0 < _number("delta", delta) < 1:
        raise UsageError(f"delta: {delta} given; a number between 0 and 1 is needed")
    if not isinstance(unit, str) or unit not in set(Unit):
        raise UsageError(f"unit: {unit!r} given; {' or '.join(Unit)} is needed")
    composed = [
        GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t)
        for s, q, t in map(_checked, given)
    ]
    found: float | None = cross_check(composed, delta)
    if accountant in ("rdp", "prv"):
        found = (rdp_epsilon if accountant == "rdp" else prv_epsilon)(composed, delta)
    elif accountant != "pld":
        raise UsageError(f"accountant: {accountant!r} given; pld, rdp or prv is needed")
    if found is None:
        raise RefusedError("accountant: prv does not converge for these values; use pld or rdp")
    return Epsilon(epsilon=found, delta=delta, unit=Unit(unit), accountant=accountant)


def _triples(events: object) -> list[Steps]:
    try:
        return [(noise, rate, steps) for noise, rate, steps in events]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise UsageError(
            f"events: {shortened(events)} given; a list of (noise multiplier, sample rate, steps) "
            "is needed"
        ) from None


def _number(name: str, value: object) -> float:
    """Returns a finite number of Python or NumPy.

    Raises:
        UsageError: The value is not one.
    """
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise UsageError(f"{name}: {shortened(value)} given; a finite number is needed")


def _checked(given: Steps) -> Steps:
    noise = _number("noise multiplier", given[0])
    rate, steps = _number("sample rate", given[1]), _number("steps", given[2])
    if noise < 0:
        raise UsageError(f"noise multiplier: {noise} given; a number from 0 up is needed")
    if not 0 <= rate <= 1:
        raise UsageError(f"sample rate: {rate} given; a probability is needed")
    if steps < 0 or steps != int(steps):
        raise UsageError(f"steps: {steps:g} given; a whole number from 0 up is needed")
    return noise, rate, int(steps)
