"""Gathers a round's updates: each in clear, or their sum under secure aggregation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.factor_pairs import cut_shapes
from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.privacy.central import CentralPlan
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.plan import Plan
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe
from cloister.server.central import CentralSum
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Replies, ReplyTerms, read_replies, update_reader
from cloister.server.secure import SecureRounds
from cloister.server.study import SecureStudy, ServerStudy
from cloister.strategies.accumulator import Accumulator, accumulator_of
from cloister.strategies.strategy import MeanStrategy, ServerState
from cloister.training.shared import shared_step


@dataclass(frozen=True)
class Collected:
    """A round's replies, and the function that closes the round with them.

    Attributes:
        replies: The sorted replies.
        close: Returns the state after the round; None: there is no sum to close it with.
        held: The updates that are kept, by site.
        why: Why the round cannot be closed, in words; empty where it can.
    """

    replies: Replies
    close: Callable[[ServerState], ServerState] | None
    held: Mapping[str, Adapter] = field(default_factory=dict)
    why: str = ""


Collect = Callable[[ServerState, int, bytes, Nodes, float], Collected]


def secure_rounds(study: ServerStudy, asker: Dispatcher) -> SecureRounds | None:
    """Returns the secure sums of a study, of updates and of evaluations; None: it has none."""
    if study.secure is None:
        return None
    terms = ReplyTerms(study.digest, study.sites, study.keys)
    has_evaluations = study.evaluation is not None
    return SecureRounds(asker, terms, study.keys or {}, study.secure.sharing, has_evaluations)


def collector(study: ServerStudy, asker: Dispatcher, rounds: SecureRounds | None = None) -> Collect:
    """Returns the function that gathers a study's updates: each in clear, or their sum.

    Args:
        study: The study.
        asker: Asks the sites.
        rounds: From `secure_rounds`; None: the updates come in clear.
    """
    terms = ReplyTerms(study.digest, study.sites, study.keys)

    def in_clear(
        state: ServerState, number: int, payload: bytes, nodes: Nodes, started: float
    ) -> Collected:
        shapes = state.adapter.select(study.trained(number)).shapes
        updates = _taking(study)
        request = RoundRequest(study.digest, number, payload)
        replies = read_replies(
            asker.ask(request, nodes, study.enough, started),
            terms,
            number,
            update_reader(
                study.max_update_norm,
                study.dtype,
                partial(_shapes_of, study, shapes),
                is_compact=study.is_compact,
            ),
            updates.add,
        )
        return Collected(replies, updates.close, updates.held)

    if study.secure is None or rounds is None:
        return in_clear
    secure, sums = study.secure, rounds

    def summed(
        state: ServerState, number: int, payload: bytes, nodes: Nodes, started: float
    ) -> Collected:
        shapes = state.adapter.select(study.trained(number)).shapes
        values = sum(math.prod(shape) for shape in shapes.values())
        found = sums.run(number, payload, values, nodes)
        if found.total is None:
            return Collected(found.replies, None, why=found.why)
        mean = secure.step(found.total, shapes, number, len(found.replies.counted))
        return Collected(
            found.replies, lambda state: cast(MeanStrategy, study.strategy).step(state, mean)
        )

    return summed


def _taking(study: ServerStudy) -> Accumulator:
    """Returns the accumulator for a round's updates."""
    if study.central is not None:
        return NoisedCentrally(cast(MeanStrategy, study.strategy), study.central)
    return accumulator_of(study.strategy, keep=study.error is not None)


class NoisedCentrally:
    """Sums updates and closes the round on their sum with the coordinator's noise."""

    held: Mapping[str, Adapter] = {}

    def __init__(self, strategy: MeanStrategy, plan: CentralPlan) -> None:
        self._strategy = strategy
        self._sum = CentralSum(plan)

    def add(self, site: str, update: Adapter) -> None:
        """Adds a site's update to the sum."""
        self._sum.add(site, update)

    def close(self, state: ServerState) -> ServerState:
        """Runs the strategy's step on the noised mean, with new noise each time."""
        return self._strategy.step(state, self._sum.mean(OsEntropy()))


def secure_study(recipe: Recipe, plan: Plan) -> SecureStudy | None:
    """What a recipe's secure aggregation adds; None where each site's noise is its own.

    Args:
        recipe: The study's.
        plan: The plan, which all sites share.
    """
    if plan.sharing is None:
        return None

    def step(total: NDArray[np.int64], shapes: Shapes, number: int, sites: int) -> Adapter:
        return shared_step(total, shapes, plan, recipe.training, round_number=number, sites=sites)

    return SecureStudy(plan.sharing, step)


def _shapes_of(study: ServerStudy, shapes: Shapes, site: str) -> list[Shapes]:
    """Names and shapes that a site's update may have: one set, or one for each rank."""
    ranks = study.participants.ranks.get(site)
    return [cut_shapes(shapes, rank) for rank in sorted(ranks)] if ranks else [shapes]
