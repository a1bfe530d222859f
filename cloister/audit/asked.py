"""What sites of an audit are asked for, and the sum of units that the answer must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.audit.asked_site import STUDY
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundRequest, Step
from cloister.training.units import UnitExamples

# The sum of some units without noise, on a grid; None: the grid of the bound.
Exact = Callable[[Sequence[UnitExamples], float | None], ClippedSum]


@dataclass(frozen=True, kw_only=True)
class AskedReleases:
    """What all sites are asked for in each round.

    Attributes:
        kind: What is summed.
        question: What is asked about: an adapter, or candidates.
        other: Another question of the same form, for which a released round must not be answered.
        values: Number of values of a sum.
    """

    kind: ReleaseKind
    question: bytes
    other: bytes
    values: int

    @classmethod
    def about(cls, kind: ReleaseKind, adapter: Adapter, values: int) -> AskedReleases:
        """Asks about an adapter; the other question is about one with all values changed."""
        other = Adapter({name: value + 1 for name, value in adapter.items()})
        return cls(kind=kind, question=encode(adapter), other=encode(other), values=values)

    def request(self, number: int, *, other: bool = False) -> RoundRequest:
        """Returns the question of a round to a site with noise of its own."""
        about = self.other if other else self.question
        if self.kind is ReleaseKind.VOTE:
            return RoundRequest(STUDY, number, b"", Step.VOTE, about)
        step = Step.EVALUATE if self.kind is ReleaseKind.EVALUATION else Step.TRAIN
        return RoundRequest(STUDY, number, about, step)


@dataclass(frozen=True, kw_only=True)
class UnitSum:
    """A release of the sum of the units' vectors: statistics of held-out units, or votes.

    Attributes:
        what: For the names of checks: what is released.
        values: For the names of checks: its values.
        asked: What sites are asked for.
        shapes: Name and shape of the one tensor that leaves.
        noise_multiplier: The plan's σ of a release of this kind.
        bound: Norm of what one unit adds.
        exact: Sums units without noise.
    """

    what: str
    values: str
    asked: AskedReleases
    shapes: Shapes
    noise_multiplier: float
    bound: float
    exact: Exact

    def planned(self, plan: Plan, rounds: int, noise_multiplier: float | None = None) -> Plan:
        """Returns a plan that lists this release in rounds 1 to `rounds`.

        Args:
            plan: The study's.
            rounds: Number of rounds.
            noise_multiplier: σ of a release; None: the plan's.
        """
        noise = self.noise_multiplier if noise_multiplier is None else noise_multiplier
        if self.asked.kind is ReleaseKind.VOTE:
            return replace(plan, num_rounds=rounds, noise_multiplier=noise)
        listed = Evaluations(rounds=tuple(range(1, rounds + 1)), noise_multiplier=noise)
        return replace(plan, num_rounds=rounds, evaluations=listed)
