"""Asks sites for their private evaluation of an adapter, and estimates its scores with intervals.

Each site sends the noised sum of its held-out units' statistics. Sums are added over the sites that
answered, and every score is a ratio of two such sums, whose interval includes the noise
(`privacy.noised_ratio`). The estimates are post-processing: they cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.formats import Shapes
from cloister.adapter.wire import decode, encode, encoded_length
from cloister.privacy.estimated_scores import to_json
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.noised_ratio import LEVEL, Floats, Ratio, estimate
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundRequest, Step
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Awaited, Replies, ReplyTerms, read_replies
from cloister.server.run_directory import RunDirectory
from cloister.server.secure import SecureRounds
from cloister.strategies.chosen_adapter import Delivery
from cloister.strategies.strategy import ServerState
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.tasks.tally.unit_statistics import Statistics
from cloister.training.held_out_sum import STATISTICS, released_shapes
from cloister.training.workspace import Workspace

COVERS = (
    "held_out: the held-out units of the sites that answered, losses cut and units beyond the "
    "bound scaled down; population: those from which these units were drawn at random. Both "
    "intervals include the noise."
)


@dataclass(frozen=True)
class PrivateEvaluation:
    """The private evaluations of a study at its coordinator.

    Attributes:
        evaluations: When sites evaluate, and with which noise.
        unit: The privacy unit; each counts as one.
        statistics: The task's statistics.
        shapes: Name and shape of what a site sends.
        kept: Returns the rounds whose evaluation is kept already.
        keep: Keeps an evaluation's line.
        shared: Each site's share of the noise, under secure aggregation; None: each adds all of it.
    """

    evaluations: Evaluations
    unit: Unit
    statistics: Statistics
    shapes: Shapes
    kept: Callable[[], frozenset[int]]
    keep: Callable[[Mapping[str, Any]], None]
    shared: SharedNoise | None = None

    def is_due(self, state: ServerState) -> bool:
        """Whether the adapter of a closed round is still to be evaluated."""
        return state.round in self.evaluations.rounds and state.round not in self.kept()

    def ask(
        self,
        asker: Dispatcher,
        terms: ReplyTerms,
        nodes: Nodes,
        state: ServerState,
        delivery: Delivery,
        secure: SecureRounds | None = None,
    ) -> Mapping[str, Any]:
        """Asks sites to evaluate what a state would deliver, keeps the estimates, and returns them.

        Sites that were asked before, for example before a crash, send the same bytes again.

        Args:
            asker: Asks the sites.
            terms: What replies are checked against.
            nodes: The connected sites.
            state: The state after a closed round.
            delivery: From the adapter that trains to the one that is scored.
            secure: The study's secure sums, where its noise is shared; else None.

        Raises:
            QuorumError: Under secure aggregation, too few sites are connected to begin an epoch.
        """
        number, payload = state.round, encode(delivery.view(state).adapter)
        if secure is not None and self.shared is not None:
            found = secure.run(number, payload, len(self.statistics.scales), nodes, evaluates=True)
            counted = () if found.total is None else tuple(found.replies.counted)
            return self._kept(number, counted, found.replies, self.of_sum(found.total, counted))
        sums = list[Floats]()
        request = RoundRequest(terms.digest, number, payload, Step.EVALUATE)
        awaited = Awaited(encoded_length(self.shapes, "float32"), self._read)
        replies = read_replies(
            asker.ask(request, nodes, len(nodes), time.monotonic()),
            terms,
            number,
            lambda site: awaited,
            lambda site, found: sums.append(found),
        )
        return self._kept(number, tuple(replies.counted), replies, self.estimates(sums))

    def _kept(
        self, number: int, sites: Collection[str], replies: Replies, estimates: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        row = {
            "round": number,
            **estimates,
            "sites": sorted(sites),
            "received": {site: list(hashes) for site, hashes in replies.received.items()},
        }
        self.keep(row)
        return row

    def of_sum(self, total: NDArray[np.int64] | None, sites: Collection[str]) -> dict[str, Any]:
        """Estimates every score from an unmasked sum with shared noise, as JSON values.

        Args:
            total: The sum in steps of the grid, [D]; None: nothing was unmasked.
            sites: The sites in the sum, each of which added its share.
        """
        size = len(self.statistics.scales)
        if self.shared is None or total is None:
            return self._estimates(np.zeros(size), 0.0)
        share = self.shared.share * self.shared.grid
        return self._estimates(total.astype(np.float64) * self.shared.grid, len(sites) * share**2)

    def estimates(self, sums: Sequence[Floats]) -> dict[str, Any]:
        """Estimates every score from the sites' noised sums, as JSON values.

        Args:
            sums: What each site sent, [D].
        """
        whole = np.sum([np.zeros(len(self.statistics.scales)), *sums], axis=0)
        variance = len(sums) * (self.evaluations.noise_multiplier * BOUND) ** 2
        return self._estimates(whole, variance)

    def _estimates(self, whole: Floats, variance: float) -> dict[str, Any]:
        """Estimates every score.

        Args:
            whole: The noised sum of all sites, scaled, [D].
            variance: Variance of its noise, the same for each statistic.
        """
        scales = self.statistics.scales
        whole, variances = whole / scales, variance / scales**2

        def each(ratios: Mapping[str, Ratio]) -> dict[str, Any]:
            return {name: to_json(estimate(one, whole, variances)) for name, one in ratios.items()}

        return {
            "is_private_evaluation": True,
            "unit": self.unit.value,
            "noise_multiplier": self.evaluations.noise_multiplier,
            "level": LEVEL,
            "covers": COVERS,
            "scores": each(self.statistics.ratios),
            "classes": {label: each(found) for label, found in self.statistics.by_class.items()},
            "noised_sums": dict(self.statistics.tables(whole)),
        }

    def _read(self, payload: bytes) -> Floats:
        return decode(payload, self.shapes, dtype="float32")[STATISTICS].astype(np.float64)


def private_evaluation(
    plan: Plan,
    workspace: Workspace,
    run: RunDirectory,
    keep: Callable[[Mapping[str, Any]], None],
) -> PrivateEvaluation | None:
    """Returns the private evaluations of a study; None: it has none.

    Args:
        plan: The plan of one site; all sites evaluate in the same rounds with the same noise.
        workspace: Has the study's task.
        run: The run's folder, which has the estimates so far.
        keep: Keeps an evaluation's line in it.

    Raises:
        RefusedError: Shared noise does not fit its bits.
    """
    if plan.evaluations is None:
        return None
    shapes = released_shapes(workspace.task)
    (shape,) = shapes.values()
    return PrivateEvaluation(
        evaluations=plan.evaluations,
        unit=plan.unit,
        statistics=statistics_of(tally_of(workspace.task)),
        shapes=shapes,
        kept=lambda: frozenset(int(row["round"]) for row in run.evaluations()),
        keep=keep,
        shared=None if plan.sharing is None else plan.shared_evaluation_noise(*shape),
    )
