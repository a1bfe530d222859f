"""The privacy plan: every constant on which a site's guarantee depends, in one frozen value.

Sampling rate, number of steps and divisor come from declared public constants, never from the
size of a data set: on n and n ± 1 records the plan is the same, so nothing that depends on the
plan (message shapes, learning rates, ledger rows, timing of rounds) tells the two apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

from cloister.canonical import canonical
from cloister.errors import RefusedError, UsageError
from cloister.privacy.accounting import SMALLEST_NOISE, calibrate, epsilon
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.events import GaussianEvent
from cloister.privacy.shared_noise import SHARE_LEFT, SharedNoise, shared_noise
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Neighbouring, Unit

Message = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes, in name order


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All constants of sampler, clip, noise and accountant, so that the accounted mechanism is what
    runs.

    Attributes:
        public_records: The site's declared, public number of units: records, or persons.
        expected_batch_size: Mean units of a Poisson batch at a site of that size; the divisor.
        local_steps: Optimizer steps in a round.
        num_rounds: Rounds in the study.
        noise_multiplier: Noise standard deviation over `max_grad_norm`; 0 without privacy. With
            shared noise it is the total noise of the fewest honest sites of a sum.
        max_grad_norm: Bound on one unit's gradient; None without privacy: no clipping.
        max_update_norm: Bound on what is sent in a round; None without privacy.
        delta: δ of the guarantee.
        unit: The unit whose presence is hidden.
        max_records: Rows of one unit that count: records of a person, or copies of a record.
        neighbouring: Which data sets are neighbours.
        message: Names and shapes of all tensors that may leave; empty before the base is known.
        sharing: How the noise is shared under secure aggregation; None: each site adds all of it.
    """

    public_records: int
    expected_batch_size: int
    local_steps: int
    num_rounds: int
    noise_multiplier: float
    max_grad_norm: float | None
    max_update_norm: float | None
    delta: float
    unit: Unit = Unit.RECORD
    max_records: int = 1
    neighbouring: Neighbouring = Neighbouring.ADD_REMOVE
    message: Message = ()
    sharing: Sharing | None = None

    @property
    def sample_rate(self) -> float:
        """Probability with which each unit is in a batch."""
        return self.expected_batch_size / self.public_records

    @property
    def is_private(self) -> bool:
        """Whether its releases have a finite ε."""
        return self.max_grad_norm is not None and self.noise_multiplier > 0

    @property
    def releases(self) -> tuple[GaussianEvent, ...]:
        """All releases of the study, fixed in advance: one event for each kind of release.

        The plan's ε is the PLD of this list, in any order.
        """
        return (self.event(self.num_rounds * self.local_steps),)

    def event(self, steps: int) -> GaussianEvent:
        """Returns the event that an accountant gets for this number of the plan's steps."""
        return GaussianEvent(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=steps,
            is_private=self.is_private,
        )

    def epsilon_after(self, rounds: int) -> float:
        """Computes ε by PLD after this number of rounds, per unit, at the plan's δ."""
        return epsilon([self.event(rounds * self.local_steps)], self.delta)

    def shared_noise(self, values: int) -> SharedNoise:
        """Returns the noise that each site adds to an update, for plans with `sharing`.

        Args:
            values: d, the number of values in the update.

        Raises:
            RefusedError: The noise is not shared, there is none, or it does not fit its bits.
        """
        if self.sharing is None or self.max_grad_norm is None or not self.noise_multiplier:
            raise RefusedError("the plan's noise is not shared")
        return shared_noise(
            self.sharing,
            bound=self.max_grad_norm,
            noise_multiplier=self.noise_multiplier,
            expected_batch_size=self.expected_batch_size,
            values=values,
        )

    def alone(self) -> Plan | None:
        """Returns the plan as a coordinator that colludes with all other sites sees it.

        They subtract their own shares, so only one site's share of the noise is left.

        Returns:
            The plan with that noise; None if it is less than accountants can handle: ε = ∞.
        """
        if self.sharing is None:
            return self
        share = self.noise_multiplier * math.sqrt(SHARE_LEFT / self.sharing.honest)
        return replace(self, noise_multiplier=share) if share >= SMALLEST_NOISE else None

    def terms(self) -> dict[str, Any]:
        """Returns the fields as JSON values; `sharing` is left out if no noise is shared.

        So the digests of plans from before `sharing` existed stay the same.
        """
        fields = asdict(self)
        if self.sharing is None:
            del fields["sharing"]
        return fields

    def digest(self) -> str:
        """Returns the SHA-256 of the plan's canonical JSON, in hex."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # A ledger that is opened asks for it once for each of its charges.
        return hashlib.sha256(canonical(self.terms())).hexdigest()

    @classmethod
    def from_terms(cls, terms: Mapping[str, Any]) -> Self:
        """Builds a plan from its JSON values.

        Raises:
            ValueError: A term is missing, unknown or has another type.
        """
        if set(terms) | {"sharing"} != {field.name for field in fields(cls)}:
            raise ValueError("the terms are not a plan's")
        sharing = terms.get("sharing")
        try:
            shared = None if sharing is None else Sharing(**sharing)
            if sharing is not None and any(type(number) is not int for number in sharing.values()):
                raise ValueError("the terms are not a plan's")
        except (TypeError, RefusedError) as error:
            raise ValueError("the terms are not a plan's") from error
        plan = cls(
            **{
                **terms,
                "sharing": shared,
                "unit": Unit(terms["unit"]),
                "neighbouring": Neighbouring(terms["neighbouring"]),
                "message": tuple((str(name), tuple(shape)) for name, shape in terms["message"]),
            }
        )
        numbers = (plan.public_records, plan.expected_batch_size, plan.local_steps, plan.num_rounds)
        exact = canonical(plan.terms()) == canonical(terms)
        if not exact or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError("the terms are not a plan's")
        return plan


def make_plan(
    config: PrivacyConfig,
    *,
    public_records: int,
    expected_batch_size: int,
    local_steps: int,
    num_rounds: int,
    sites: int,
) -> Plan:
    """Solves for the noise multiplier and returns the complete plan.

    Args:
        config: The `[privacy]` section.
        public_records: The site's declared, public number of units.
        expected_batch_size: Mean units of a batch.
        local_steps: Steps in a round.
        num_rounds: Rounds in the study.
        sites: Sites in the study, among which noise may be shared.

    Raises:
        UsageError: The sample rate is above 1.
        RefusedError: No amount of noise meets the target, or too few sites share it.
    """
    rate = expected_batch_size / public_records
    if rate > 1:
        raise UsageError(
            f"sample rate {rate:.3g}: expected_batch_size {expected_batch_size} is above the "
            f"declared {public_records} records of a site; make the batch smaller or declare "
            "data.public_records larger"
        )
    if not config.enabled:
        noise_multiplier = 0.0
    elif config.target_epsilon is not None:
        noise_multiplier = calibrate(
            rate, local_steps * num_rounds, config.target_epsilon, config.delta
        )
    else:
        noise_multiplier = config.noise_multiplier or 0.0
    return Plan(
        public_records=public_records,
        expected_batch_size=expected_batch_size,
        local_steps=local_steps,
        num_rounds=num_rounds,
        noise_multiplier=noise_multiplier,
        max_grad_norm=config.max_grad_norm if config.enabled else None,
        max_update_norm=config.max_update_norm if config.enabled else None,
        delta=config.delta,
        unit=config.unit,
        max_records=config.max_records,
        sharing=config.sharing(sites),
    )
