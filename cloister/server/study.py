"""The interface between a study and the round loop: all values and functions that the loop uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.formats import Dtype, Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.privacy.central import CentralPlan
from cloister.privacy.sharing import Sharing
from cloister.server.aggregate_noise import AggregateNoise, unknown_noise
from cloister.server.ports import Observer, Participants
from cloister.server.private_evaluation import PrivateEvaluation
from cloister.server.report import RoundReport, SetScores
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.strategy import ServerState, Strategy


@dataclass(frozen=True)
class SecureStudy:
    """The settings of a study with secure aggregation.

    Attributes:
        sharing: How noise is shared among the sites.
        step: Returns the adapter's step from the total, the shapes of the trained tensors, the
            round, and the number of sites in the total.
    """

    sharing: Sharing
    step: Callable[[NDArray[np.int64], Shapes, int, int], Adapter]


@dataclass(frozen=True)
class ServerStudy:
    """Everything that the round loop needs of a study.

    Attributes:
        digest: Digest of its recipe.
        participants: The sites, and how they are asked.
        observer: Gets the events of the study.
        strategy: How updates are aggregated.
        state: The state to go on from: before round 1, or a checkpoint's.
        num_rounds: Number of the last round.
        min_sites: Fewest updates that close a round; None: one from every site that has budget.
        trained: Returns the names of the tensors that travel in a round.
        max_update_norm: Norm to which every site clips its update; None: no bound.
        score: Scores a state on public data; empty if the round is not scored.
        save: Makes a state durable before the next round starts, with the round's figures so far.
        stop_early: Keeps a state that is the best so far, and returns whether the study stops, by
            the scores and estimates that are kept.
        error: Computes the aggregation error from the adapter before a round, its updates by site,
            and the adapter after it. None: not computed; then a linear strategy's updates are
            summed as they arrive, and none is kept.
        dtype: Type of the values in an update's message.
        is_compact: Whether this message leaves out names and shapes (`adapter.compact`).
        question: Returns the message with the adapter with which a round begins.
        rounded: Returns the state after a round as the next question has it, and as it is kept.
        secure: Secure aggregation, if noise is shared; it needs `participants.keys`.
        central: The noise that the coordinator adds to the sum of updates; None: none.
        delivery: From the adapter that trains to the one that is scored and delivered.
        noise: Returns the noise variance of each value of a round's mean, from the round, the sites
            whose updates count, and the number of values.
        evaluation: The private evaluations on held-out units; None: there are none.
        settle: Returns the state after a round's aggregation as it is kept: moved towards the
            study's starting adapter, trained on public records, or unchanged.
    """

    digest: str
    participants: Participants
    observer: Observer
    strategy: Strategy
    state: ServerState
    num_rounds: int
    min_sites: int | None
    trained: Callable[[int], frozenset[str]]
    max_update_norm: float | None
    score: Callable[[ServerState], SetScores]
    save: Callable[[ServerState, RoundReport], None]
    stop_early: Callable[[ServerState], bool] = lambda state: False
    error: Callable[[Adapter, Mapping[str, Adapter], Adapter], float | None] | None = None
    dtype: Dtype = "float32"
    is_compact: bool = False
    question: Callable[[Adapter, int], bytes] = lambda adapter, number: encode(adapter)
    rounded: Callable[[ServerState], ServerState] = lambda state: state
    secure: SecureStudy | None = None
    central: CentralPlan | None = None
    delivery: Delivery = field(default_factory=Delivery)
    noise: AggregateNoise = unknown_noise
    evaluation: PrivateEvaluation | None = None
    settle: Callable[[ServerState], ServerState] = lambda state: state

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of all sites of the study."""
        return self.participants.names

    def owes_evaluation(self, state: ServerState) -> bool:
        """Whether the adapter of a closed round is still to be evaluated privately."""
        return self.evaluation is not None and self.evaluation.is_due(state)

    @property
    def keys(self) -> Mapping[str, str] | None:
        """Public keys of the sites' ledgers; None: signatures are not checked."""
        return self.participants.keys

    @property
    def enough(self) -> int:
        """The fewest sites with which a round begins."""
        if self.secure is not None:
            return self.secure.sharing.threshold
        return self.min_sites or len(self.sites)

    @property
    def fewest(self) -> int:
        """The fewest sites that the strategy, or secure aggregation, needs."""
        if self.secure is not None:
            return self.secure.sharing.threshold
        return self.strategy.traits.fewest
