"""What the coordinator knows of a study, and what it tells of a round."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from cloister.adapter.formats import Dtype, Shapes
from cloister.adapter.tensors import Adapter
from cloister.privacy.central import CentralPlan
from cloister.privacy.sharing import Sharing
from cloister.server.dispatch import Nodes, Patience
from cloister.server.voice import Voice
from cloister.strategies.strategy import ServerState, Strategy

log = logging.getLogger(__name__)

# Seconds in which connected sites must say whether they take part: as for a round (Flower's own
# default for one exchange), in which a site on a line of 50 Mbit/s fetches a base of 20 GB. Who
# takes longer comes in with the round at hand.
PREPARE_TIMEOUT = 3600.0

SetScores = Mapping[str, Mapping[str, float]]  # by public data set, then by metric


@dataclass(frozen=True)
class RoundReport:
    """What a closed round came to.

    Attributes:
        round: From 1.
        metrics: Scores by set (`test`, `validation`) and name; empty where the round was not
            scored.
        epsilon: ε that each site's ledger promises, as the site states it (`RoundReply.epsilon`);
            ∞ without privacy.
        received: SHA-256 of what each site sent, and of its ledger's entry for it.
        bytes_up: Bytes of all updates received.
        bytes_down: Bytes of the global adapter, times sites.
        seconds: From the first message to the saved state.
        seconds_scoring: Of these, evaluation.
        missing: Sites that did not answer with an update, but for the retired.
        retired: Sites whose budget is spent.
        refused: Why a reply does not count, by site.
        update_norm: Norm of what the global adapter moved.
        aggregation_error: Relative distance of the global product from the mean of the sites'
            products; None where the method does not aim at the mean, or no product moved.
    """

    round: int
    metrics: SetScores
    epsilon: Mapping[str, float]
    received: Mapping[str, tuple[str, str]]
    bytes_up: int
    bytes_down: int
    seconds: float
    seconds_scoring: float
    missing: tuple[str, ...]
    retired: tuple[str, ...]
    refused: Mapping[str, str]
    update_norm: float
    aggregation_error: float | None


@dataclass(frozen=True)
class SecureStudy:
    """What a study under secure aggregation adds.

    Attributes:
        sharing: Among how many sites noise is shared.
        step: What a total over so many sites moves the adapter by: from the total, the shapes of
            what trains, the round and the number of sites.
    """

    sharing: Sharing
    step: Callable[[NDArray[np.int64], Shapes, int, int], Adapter]


@dataclass(frozen=True)
class ServerStudy:
    """What the coordinator knows of a study.

    Attributes:
        digest: Of its recipe.
        sites: Names of all sites.
        strategy: How updates are aggregated.
        state: Where to go on: before round 1, or a checkpoint's.
        num_rounds: When to end.
        min_sites: Fewest updates that close a round; None: one from every site that has budget.
        patience: How long a round waits.
        prepare_timeout: How long, in seconds, sites may take to say whether they take part.
        trained: Names that travel in a round.
        max_update_norm: Bound that every site agreed to clip what it sends to; None: no bound.
        score: Scores an adapter on public data, or returns nothing where the round is not scored.
        save: Makes a state durable before the next round starts.
        voice: How questions are signed; a simulation says that they are not.
        ready: Sites that said, before the run was interrupted, that they take part: they are not
            asked again, and prepare for their next round where they have been started anew.
        stop_early: Whether the scores so far end the study.
        on_round: Told of each closed round.
        on_ready: Told of each site that takes part, as it says so.
        on_refused: Told before the first round who takes no part, and why.
        on_note: Told what is out of the ordinary, in words.
        on_event: Told what happens to a site in a round (`server.dispatch`); in round 0, while it
            prepares or its operator has yet to approve the study.
        nodes: Which connected nodes there are, with their sites where the node's key tells.
        since: When each of them connected, where that can be told (`server.dispatch`).
        keys: Public keys of the sites' ledgers, which sign what they send; None: not checked.
        error: The aggregation error, from the adapter before a round, its updates that count by
            site, and the adapter after it; absent where there is none to speak of: then a linear
            strategy's updates are summed as they arrive, and none is kept.
        ranks: Those that a site's adapters may have, where they differ.
        dtype: What updates travel as.
        secure: Where noise is shared, under secure aggregation; then `keys` are needed.
        central: Noise that the coordinator adds to the sum of updates, where it does.
    """

    digest: str
    sites: tuple[str, ...]
    strategy: Strategy
    state: ServerState
    num_rounds: int
    min_sites: int | None
    patience: Patience
    trained: Callable[[int], frozenset[str]]
    max_update_norm: float | None
    score: Callable[[ServerState], SetScores]
    save: Callable[[ServerState], None]
    voice: Voice
    ready: frozenset[str] = frozenset()
    stop_early: Callable[[ServerState, SetScores], bool] = lambda state, metrics: False
    on_round: Callable[[RoundReport], None] = lambda report: None
    on_ready: Callable[[str], None] = lambda site: None
    on_refused: Callable[[str, str], None] = lambda site, why: None
    on_note: Callable[[str], None] = log.warning
    prepare_timeout: float = PREPARE_TIMEOUT
    on_event: Callable[[str, int, str], None] = lambda what, number, site: None
    nodes: Callable[[Grid], Nodes] = lambda grid: dict.fromkeys(sorted(grid.get_node_ids()), "")
    since: Callable[[Grid], Mapping[int, str]] = lambda grid: {}
    keys: Mapping[str, str] | None = None
    error: Callable[[Adapter, Mapping[str, Adapter], Adapter], float | None] | None = None
    ranks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    dtype: Dtype = "float32"
    secure: SecureStudy | None = None
    central: CentralPlan | None = None

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
