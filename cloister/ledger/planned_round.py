"""A round as the budget's rule sees it: its kind of step, and all releases of its plan."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.privacy.events import GaussianEvent
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Neighbouring, Unit


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """The mechanism of every step of a plan, whatever the number of rounds.

    Attributes:
        noise_multiplier: Noise standard deviation over the bound on one unit's contribution.
        sample_rate: Probability with which each unit is in a batch.
        is_private: Whether the randomness is unpredictable.
        unit: The unit whose presence is hidden.
        max_records: Records of one unit that count.
        neighbouring: Which data sets are neighbours.
        sharing: How the noise is shared; None: not shared.
        release: What is released. An evaluation is a kind of its own, also where its noise and rate
            are those of training.
    """

    noise_multiplier: float
    sample_rate: float
    is_private: bool
    unit: Unit
    max_records: int
    neighbouring: Neighbouring
    sharing: Sharing | None
    release: ReleaseKind = ReleaseKind.TRAINING

    def event(self, steps: int) -> GaussianEvent:
        """The event of this number of such steps."""
        return GaussianEvent(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=steps,
            is_private=self.is_private,
        )


# Kinds of steps, with the number of each.
Listed = tuple[tuple[StepKind, int], ...]


@dataclass(frozen=True, kw_only=True)
class PlannedRound:
    """A round that a site is asked to run.

    Attributes:
        plan: Digest of its plan.
        kind: The kind of each of its steps.
        steps: Steps of the round.
        listed: The kinds of all steps of the whole plan, with the number of each.
    """

    plan: str
    kind: StepKind
    steps: int
    listed: Listed

    @property
    def planned_steps(self) -> int:
        """Steps of the whole plan, of all kinds."""
        return sum(steps for _, steps in self.listed)

    @property
    def event(self) -> GaussianEvent:
        """The round's release as an accountant's event."""
        return self.kind.event(self.steps)

    @property
    def planned(self) -> tuple[GaussianEvent, ...]:
        """The releases of all of the plan's rounds, one event for each kind."""
        return tuple(kind.event(steps) for kind, steps in self.listed)
