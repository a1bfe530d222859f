"""Asks sites for their private evaluation of an adapter, and estimates its scores with intervals.

Each site sends the noised sum of its held-out units' statistics. Sums are added over the sites that
answered, and every score is a ratio of two such sums, whose interval includes the noise
(`privacy.noised_ratio`). The estimates are post-processing: they cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloister.adapter.formats import Shapes
from cloister.adapter.wire import decode, encode, encoded_length
from cloister.privacy.estimated_scores import to_json
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.noised_ratio import LEVEL, Floats, Ratio, estimate
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundRequest, Step
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Awaited, ReplyTerms, read_replies
from cloister.server.run_directory import RunDirectory
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
    """

    evaluations: Evaluations
    unit: Unit
    statistics: Statistics
    shapes: Shapes
    kept: Callable[[], frozenset[int]]
    keep: Callable[[Mapping[str, Any]], None]

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
    ) -> Mapping[str, Any]:
        """Asks sites to evaluate what a state would deliver, keeps the estimates, and returns them.

        Sites that were asked before, for example before a crash, send the same bytes again.

        Args:
            asker: Asks the sites.
            terms: What replies are checked against.
            nodes: The connected sites.
            state: The state after a closed round.
            delivery: From the adapter that trains to the one that is scored.
        """
        number, sums = state.round, list[Floats]()
        request = RoundRequest(
            terms.digest, number, encode(delivery.view(state).adapter), Step.EVALUATE
        )
        awaited = Awaited(encoded_length(self.shapes, "float32"), self._read)
        replies = read_replies(
            asker.ask(request, nodes, len(nodes), time.monotonic()),
            terms,
            number,
            lambda site: awaited,
            lambda site, found: sums.append(found),
        )
        row = {
            "round": number,
            **self.estimates(sums),
            "sites": sorted(replies.counted),
            "received": {site: list(hashes) for site, hashes in replies.received.items()},
        }
        self.keep(row)
        return row

    def estimates(self, sums: Sequence[Floats]) -> dict[str, Any]:
        """Estimates every score from the sites' noised sums, as JSON values.

        Args:
            sums: What each site sent, [D].
        """
        scales, noise = self.statistics.scales, self.evaluations.noise_multiplier
        whole = np.sum([np.zeros(len(scales)), *sums], axis=0) / scales
        variances = len(sums) * (noise * BOUND / scales) ** 2

        def each(ratios: Mapping[str, Ratio]) -> dict[str, Any]:
            return {name: to_json(estimate(one, whole, variances)) for name, one in ratios.items()}

        return {
            "is_private_evaluation": True,
            "unit": self.unit.value,
            "noise_multiplier": noise,
            "level": LEVEL,
            "covers": COVERS,
            "scores": each(self.statistics.ratios),
            "classes": {label: each(found) for label, found in self.statistics.by_class.items()},
            "noised_sums": dict(self.statistics.tables(whole)),
        }

    def _read(self, payload: bytes) -> Floats:
        return decode(payload, self.shapes, dtype="float32")[STATISTICS].astype(np.float64)


def private_evaluation(
    plan: Plan, workspace: Workspace, run: RunDirectory
) -> PrivateEvaluation | None:
    """Returns the private evaluations of a study; None: it has none.

    Args:
        plan: The plan of one site; all sites evaluate in the same rounds with the same noise.
        workspace: Has the study's task.
        run: The run's folder, which keeps the estimates.
    """
    if plan.evaluations is None:
        return None
    return PrivateEvaluation(
        evaluations=plan.evaluations,
        unit=plan.unit,
        statistics=statistics_of(tally_of(workspace.task)),
        shapes=released_shapes(workspace.task),
        kept=lambda: frozenset(int(row["round"]) for row in run.evaluations()),
        keep=run.append_evaluation,
    )
