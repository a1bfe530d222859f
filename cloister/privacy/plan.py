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

from cloister.bounds import MOST_ROUNDS
from cloister.canonical import canonical
from cloister.errors import RefusedError, UsageError
from cloister.privacy.accounting import SMALLEST_NOISE, calibrate, epsilon
from cloister.privacy.bands import check_bands, check_room, coefficients, step_variance
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.events import GaussianEvent
from cloister.privacy.listed_rules import check_evaluations, check_votes
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.shared_noise import SHARE_LEFT, SharedNoise, shared_noise
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Neighbouring, Unit
from cloister.privacy.votes import BOUND, shared_vote_noise

Message = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes, in name order
# Terms that are left out where a plan has none of them.
_LATER = {"sharing", "bands", "evaluations", "votes"}


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
        bands: k, the integers by which the noise of successive steps is correlated
            (`privacy.bands`); empty: the noise of each step is independent.
        evaluations: The private evaluations on held-out units; None: there are none.
        votes: Number of public candidates among which every unit votes in every round
            (`privacy.votes`); then nothing is trained, the rate and the bound are 1, and `message`
            is the histogram. None: a plan that trains.
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
    bands: tuple[int, ...] = ()
    evaluations: Evaluations | None = None
    votes: int | None = None

    def __post_init__(self) -> None:
        if self.votes is not None:
            sizes = (self.expected_batch_size, self.local_steps)
            bounds = (self.max_grad_norm, self.max_update_norm)
            check_votes(
                self.votes,
                self.sharing,
                is_alone=self._is_independent and self.evaluations is None,
                is_of_all=(*sizes, *bounds) == (self.public_records, 1, BOUND, None),
            )
        if self.evaluations is not None:
            check_evaluations(
                self.evaluations,
                self.sharing,
                is_independent=self._is_independent,
                num_rounds=self.num_rounds,
            )
        if not self.bands:
            return
        check_bands(self.bands)
        if self.sharing is not None or self.local_steps != 1 or not self.is_private:
            raise RefusedError(
                "correlated noise is possible for one step a round, with noise of the site's own"
            )
        check_room(self.bands, self.noise_multiplier, self.num_rounds)

    @property
    def _is_independent(self) -> bool:
        return self.is_private and not self.bands

    @property
    def groups(self) -> int:
        """b, the groups that take turns: a unit is in every b-th batch only; 1: in any."""
        return len(self.bands) or 1

    @property
    def sample_rate(self) -> float:
        """Probability with which each unit is in a batch of its group."""
        return self.groups * self.expected_batch_size / self.public_records

    @property
    def is_private(self) -> bool:
        """Whether its releases have a finite ε."""
        return self.max_grad_norm is not None and self.noise_multiplier > 0

    @property
    def listed(self) -> tuple[tuple[ReleaseKind, GaussianEvent], ...]:
        """All releases of the study, fixed in advance: one event for each kind of release."""
        kind = ReleaseKind.TRAINING if self.votes is None else ReleaseKind.VOTE
        steps = (kind, self.event(self.compositions(self.num_rounds)))
        if self.evaluations is None:
            return (steps,)
        return steps, (ReleaseKind.EVALUATION, self.evaluations.event())

    @property
    def releases(self) -> tuple[GaussianEvent, ...]:
        """The events of `listed`; the plan's ε is the PLD of this list, in any order."""
        return tuple(event for _, event in self.listed)

    def compositions(self, rounds: int) -> int:
        """Returns how many releases of one unit an accountant counts in this number of rounds.

        With correlated noise ⌈rounds / b⌉: whatever its group is, a unit is in no more steps.
        """
        return -(-rounds * self.local_steps // self.groups)

    def charged_steps(self, before: int) -> int:
        """Returns how many of these are charged for a round.

        With correlated noise the whole cycle of b rounds is charged at its first one, and nothing
        for the others, because each unit is in one of them only.

        Args:
            before: Rounds of the plan that were charged before it in its study.
        """
        return self.compositions(before + 1) - self.compositions(before)

    @property
    def step_noise(self) -> float:
        """Largest deviation of the noise in one released sum, over `max_grad_norm`.

        With correlated noise it is larger than σ, and partly cancels in the sum of all steps.
        """
        return self.noise_multiplier * math.sqrt(step_variance(self.bands, self.num_rounds))

    def independent(self) -> Plan:
        """Returns the plan of independent noise whose event is this plan's: what an accountant
        sees. Without correlated noise it is the plan itself."""
        if not self.bands:
            return self
        return replace(
            self,
            bands=(),
            expected_batch_size=self.groups * self.expected_batch_size,
            num_rounds=self.compositions(self.num_rounds),
        )

    def rounds_in(self, steps: int, before: int = 0) -> int:
        """Returns how many further rounds so many charged steps allow.

        Args:
            steps: From `compositions`.
            before: Rounds of the plan that were charged already.
        """
        total = (self.compositions(before) + steps) * self.groups // self.local_steps
        return total - before

    def event(self, steps: int) -> GaussianEvent:
        """Returns the event that an accountant gets for this number of compositions."""
        return GaussianEvent(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=steps,
            is_private=self.is_private,
        )

    def epsilon_after(self, rounds: int) -> float:
        """Computes ε by PLD after this number of rounds, per unit, at the plan's δ.

        Evaluations after the last of these rounds count, too.
        """
        done = None if self.evaluations is None else self.evaluations.until(rounds)
        evaluated = () if done is None else (done.event(),)
        return epsilon([self.event(self.compositions(rounds)), *evaluated], self.delta)

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

    def shared_evaluation_noise(self, values: int) -> SharedNoise:
        """Returns the noise that each site adds to so many statistics, for plans with `sharing`.

        Raises:
            RefusedError: There are no evaluations, the noise is not shared, or it does not fit.
        """
        if self.sharing is None or self.evaluations is None:
            raise RefusedError("the plan has no evaluation whose noise is shared")
        return self.evaluations.shared(self.sharing, self.public_records, values)

    def shared_vote_noise(self) -> SharedNoise:
        """Returns the noise that each site adds to every count, for plans with `sharing`.

        Raises:
            RefusedError: There are no votes, the noise is not shared, or it does not fit.
        """
        if self.sharing is None or self.votes is None:
            raise RefusedError("the plan has no votes whose noise is shared")
        return shared_vote_noise(
            self.sharing,
            noise_multiplier=self.noise_multiplier,
            public_records=self.public_records,
            candidates=self.votes,
        )

    def alone(self) -> Plan | None:
        """Returns the plan as a coordinator that colludes with all other sites sees it.

        They subtract their own shares, so only one site's share of the noise is left.

        Returns:
            The plan with that noise; None if it is less than accountants can handle: ε = ∞.
        """
        if self.sharing is None:
            return self
        left, evaluations = math.sqrt(SHARE_LEFT / self.sharing.honest), self.evaluations
        noises = [self.noise_multiplier]
        noises += [] if evaluations is None else [evaluations.noise_multiplier]
        if min(noises) * left < SMALLEST_NOISE:
            return None
        if evaluations is not None:
            share = evaluations.noise_multiplier * left
            evaluations = replace(evaluations, noise_multiplier=share)
        return replace(self, noise_multiplier=self.noise_multiplier * left, evaluations=evaluations)

    def terms(self) -> dict[str, Any]:
        """Returns the fields as JSON values; without `sharing`, `bands`, `evaluations` and `votes`
        where there are none.

        So the digests of plans from before they existed stay the same.
        """
        fields = asdict(self)
        return {name: value for name, value in fields.items() if name not in _LATER or value}

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
        if set(terms) | _LATER != {field.name for field in fields(cls)}:
            raise ValueError("the terms are not a plan's")
        rounds = terms["num_rounds"]  # correlated noise is computed for all of them at once
        if terms.get("bands") and not (type(rounds) is int and 1 <= rounds <= MOST_ROUNDS):
            raise ValueError("the terms are not a plan's")
        sharing = terms.get("sharing")
        try:
            shared = None if sharing is None else Sharing(**sharing)
            if sharing is not None and any(type(number) is not int for number in sharing.values()):
                raise ValueError("the terms are not a plan's")
            evaluations = terms.get("evaluations")
            evaluated = None if evaluations is None else Evaluations.from_terms(evaluations)
        except (TypeError, RefusedError) as error:
            raise ValueError("the terms are not a plan's") from error
        try:
            plan = cls(
                **{
                    **terms,
                    "sharing": shared,
                    "evaluations": evaluated,
                    "bands": tuple(terms.get("bands", ())),
                    "unit": Unit(terms["unit"]),
                    "neighbouring": Neighbouring(terms["neighbouring"]),
                    "message": tuple((str(name), tuple(shape)) for name, shape in terms["message"]),
                }
            )
        except RefusedError as error:
            raise ValueError(f"the terms are not a plan's: {error}") from error
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
    groups = config.bands
    rate = groups * expected_batch_size / public_records
    if groups > 1 and rate > 1:
        raise UsageError(
            f"privacy.noise_bands: {groups} groups at expected_batch_size {expected_batch_size} of "
            f"the declared {public_records} records are a sample rate of {rate:.3g} in a group, "
            "above 1; use fewer bands or a smaller batch"
        )
    if rate > 1:
        raise UsageError(
            f"sample rate {rate:.3g}: expected_batch_size {expected_batch_size} is above the "
            f"declared {public_records} records of a site; make the batch smaller or declare "
            "data.public_records larger"
        )
    evaluations = config.evaluations
    if not config.enabled:
        noise_multiplier = 0.0
    elif config.target_epsilon is not None:
        steps = -(-local_steps * num_rounds // groups)
        beside = () if evaluations is None else (evaluations.event(),)
        noise_multiplier = calibrate(rate, steps, config.target_epsilon, config.delta, beside)
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
        bands=coefficients(groups, num_rounds) if groups > 1 else (),
        evaluations=evaluations,
    )
