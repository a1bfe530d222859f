"""Norm gate: updates far longer than the others do not count (after Sun et al. 2019,
arXiv:1911.07963, where the threshold is a constant).

    x ← x + mean of the Δ_k with ‖Δ_k‖ ≤ c · median_j ‖Δ_j‖

Fewer than half of the sites cannot move the median norm beyond the others' norms, so each of their
updates is at most c times such a norm. If all norms are alike, no site is left out and the method
equals FedAvg.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import enough, stepped, weighted_mean
from cloister.strategies.method import Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class NormGate:
    """Averages the updates that are not too long.

    Attributes:
        multiple: c, at least 1, so that at least half of the updates count.
    """

    multiple: float

    @property
    def traits(self) -> Traits:
        """Needs individual updates, and three for a median that one site does not decide."""
        return Traits(is_linear=False, takes_weights=False, fewest=3, survives=1, averages=True)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def left_out(self, updates: Mapping[str, Adapter]) -> dict[str, str]:
        """Reasons by site, for each update that does not count."""
        norms = {site: update.norm() for site, update in updates.items()}
        median = statistics.median(norms.values())
        return {
            site: f"an update of norm {norm:.4g}, above {self.multiple:g} times the median norm "
            f"{median:.4g} of the round"
            for site, norm in sorted(norms.items())
            if norm > self.multiple * median
        }

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the mean of the updates that count."""
        enough(updates, self.traits.fewest)
        refused = self.left_out(updates)
        kept = {site: update for site, update in updates.items() if site not in refused}
        return stepped(state, weighted_mean(kept, {}))


METHODS = (
    Method(
        name="norm-gate",
        fields=frozenset({"multiple"}),
        make=lambda weights, options: NormGate(options["multiple"]),
    ),
)
