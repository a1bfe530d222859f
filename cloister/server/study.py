"""What the coordinator knows of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.formats import Dtype, Shapes
from cloister.adapter.tensors import Adapter
from cloister.privacy.central import CentralPlan
from cloister.privacy.sharing import Sharing
from cloister.server.ports import Observer, Participants
from cloister.server.report import SetScores
from cloister.strategies.strategy import ServerState, Strategy


@dataclass(frozen=True)
class SecureStudy:
    """What a study under secure aggregation adds.

    Attributes:
        sharing: Among how many sites noise is shared.
        step: Returns the adapter's step: from the total, the shapes of what trains, the round, and
            the number of sites in the total.
    """

    sharing: Sharing
    step: Callable[[NDArray[np.int64], Shapes, int, int], Adapter]


@dataclass(frozen=True)
class ServerStudy:
    """What the round loop needs of a study.

    Attributes:
        digest: Of its recipe.
        participants: The sites, and how they are asked.
        observer: Who is told what happens.
        strategy: How updates are aggregated.
        state: The state to go on from: before round 1, or a checkpoint's.
        num_rounds: When to end.
        min_sites: Fewest updates that close a round; None: one from every site that has budget.
        trained: Names that travel in a round.
        max_update_norm: Bound that every site agreed to clip what it sends to; None: no bound.
        score: Scores an adapter on public data, or returns nothing where the round is not scored.
        save: Makes a state durable before the next round starts.
        stop_early: Whether the scores so far end the study.
        error: The aggregation error, from the adapter before a round, its updates that count by
            site, and the adapter after it; absent where there is none to speak of: then a linear
            strategy's updates are summed as they arrive, and none is kept.
        dtype: What updates travel as.
        secure: Where noise is shared, under secure aggregation; then `participants.keys` are
            needed.
        central: Noise that the coordinator adds to the sum of updates, where it does.
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
    save: Callable[[ServerState], None]
    stop_early: Callable[[ServerState, SetScores], bool] = lambda state, metrics: False
    error: Callable[[Adapter, Mapping[str, Adapter], Adapter], float | None] | None = None
    dtype: Dtype = "float32"
    secure: SecureStudy | None = None
    central: CentralPlan | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites."""
        return self.participants.names

    @property
    def keys(self) -> Mapping[str, str] | None:
        """Public keys of the sites' ledgers; None: signatures are not checked."""
        return self.participants.keys

    @property
    def enough(self) -> int:
        """Fewest sites with which a round is begun."""
        if self.secure is not None:
            return self.secure.sharing.threshold
        return self.min_sites or len(self.sites)

    @property
    def fewest(self) -> int:
        """Fewest sites that the way to aggregate is defined for."""
        if self.secure is not None:
            return self.secure.sharing.threshold
        return self.strategy.traits.fewest
