"""One study at the coordinator: our own loop over Flower's Grid, so that a run can be resumed.

Each round: send the global adapter to every site, wait for the updates until the deadline, check
them, aggregate, save, score, tell the observers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from flwr.serverapp import Grid

from cloister.adapter.exchange import RoundRequest
from cloister.adapter.formats import Shapes
from cloister.adapter.pairs import cut_shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import QuorumError
from cloister.server.asking import Asker, Nodes, Patience
from cloister.server.replies import Replies, Terms, read_replies
from cloister.strategies.arriving import arriving
from cloister.strategies.strategy import Gate, ServerState, Strategy

log = logging.getLogger(__name__)

SetScores = Mapping[str, Mapping[str, float]]  # by public data set, then by metric


@dataclass(frozen=True)
class RoundReport:
    """What a closed round came to.

    Attributes:
        round: From 1.
        metrics: Scores by set (`test`, `validation`) and name; empty where the round was not
            scored.
        epsilon: ε spent so far, by site, as the sites state it; ∞ without privacy.
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
        trained: Names that travel in a round.
        max_update_norm: Bound that every site agreed to clip what it sends to; None: no bound.
        score: Scores an adapter on public data, or returns nothing where the round is not scored.
        save: Makes a state durable before the next round starts.
        stop_early: Whether the scores so far end the study.
        on_round: Told of each closed round.
        on_note: Told what is out of the ordinary, in words.
        on_event: Told what happens to a site in a round (`server.asking`).
        nodes: Which connected nodes there are, with their sites where the node's key tells.
        since: When each of them connected, where that can be told (`server.asking`).
        keys: Public keys of the sites' ledgers, which sign what they send; None: not checked.
        error: The aggregation error, from the adapter before a round, its updates that count by
            site, and the adapter after it; absent where there is none to speak of: then a linear
            strategy's updates are summed as they arrive, and none is kept.
        ranks: Of sites' adapters, where they differ.
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
    stop_early: Callable[[ServerState, SetScores], bool] = lambda state, metrics: False
    on_round: Callable[[RoundReport], None] = lambda report: None
    on_note: Callable[[str], None] = log.warning
    on_event: Callable[[str, int, str], None] = lambda what, number, site: None
    nodes: Callable[[Grid], Nodes] = lambda grid: dict.fromkeys(sorted(grid.get_node_ids()), "")
    since: Callable[[Grid], Mapping[int, str]] = lambda grid: {}
    keys: Mapping[str, str] | None = None
    error: Callable[[Adapter, Mapping[str, Adapter], Adapter], float | None] | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)


def run_study(grid: Grid, study: ServerStudy) -> ServerState:
    """Runs every round that is left.

    Returns:
        The final state.

    Raises:
        QuorumError: Too few sites answered in a round; the state of the last closed one is saved.
    """
    state = study.state
    epsilon: dict[str, float] = {}
    asker = Asker(grid, study.nodes, study.patience, study.on_event, study.since)
    terms = Terms(study.digest, study.sites, study.max_update_norm, study.keys)
    enough = study.min_sites or len(study.sites)
    while state.round < study.num_rounds:
        started = time.monotonic()
        number = state.round + 1
        payload = encode(state.adapter)
        nodes = asker.connected(len(study.sites), enough, started)
        if len(nodes) < enough:
            raise QuorumError(
                f"{len(nodes)} sites are connected after {study.patience.round:.0f} s, "
                f"{enough} are needed; start the others, then resume the run"
            )
        shapes = state.adapter.select(study.trained(number)).shapes
        updates = arriving(study.strategy, keep=study.error is not None)
        replies = read_replies(
            asker.ask(RoundRequest(study.digest, number, payload), nodes, enough, started),
            terms,
            number,
            partial(_shapes_of, study, shapes),
            updates.add,
        )
        if replies.retired.issuperset(study.sites):
            study.on_note(f"every site's budget is spent: ending after round {state.round}")
            break
        counts = _counts(replies, study, number)
        epsilon |= replies.epsilon
        before, counted = state.adapter, dict(updates.held)
        if isinstance(study.strategy, Gate):
            for site, why in study.strategy.left_out(updates.held).items():
                replies.refuse(site, number, why)
                counted.pop(site)
        if counts:
            state = updates.close(state)
        else:
            cut = ", ".join(sorted(replies.spent))
            study.on_note(
                f"round {number} was charged and cut off at {cut}: it stays spent and is skipped"
            )
            state = replace(state, round=number)
        study.save(state)
        scored = time.monotonic()
        metrics = study.score(state)
        ended = time.monotonic()
        study.on_round(
            RoundReport(
                round=number,
                metrics=metrics,
                epsilon=dict(epsilon),
                received=dict(replies.received),
                bytes_up=replies.bytes,
                bytes_down=len(payload) * len(nodes),
                seconds=ended - started,
                seconds_scoring=ended - scored,
                missing=tuple(
                    s for s in study.sites if s not in replies.counted and s not in replies.retired
                ),
                retired=tuple(sorted(replies.retired)),
                refused=dict(replies.refused),
                update_norm=(state.adapter - before).norm(),
                aggregation_error=study.error and study.error(before, counted, state.adapter),
            )
        )
        if metrics and study.stop_early(state, metrics):
            break
    return state


def _shapes_of(study: ServerStudy, shapes: Shapes, site: str) -> Shapes:
    return cut_shapes(shapes, study.ranks.get(site))


def _counts(replies: Replies, study: ServerStudy, number: int) -> bool:
    """Whether a round's updates are aggregated.

    Sites whose budget is spent are not waited for unless the study says how many it needs. A round
    that was cut off at so many sites that too few are left is skipped: asked again, these sites
    would say the same.

    Raises:
        QuorumError: Too few sites answered, and others still could.
    """
    excused = replies.retired | replies.spent
    have = len(replies.counted)
    needed = study.min_sites or sum(site not in excused for site in study.sites)
    if have:
        needed = max(needed, study.strategy.traits.fewest)
    if have >= needed:
        return have > 0
    if replies.spent and have + len(replies.spent) >= needed:
        return False
    silent = [site for site in study.sites if site not in replies.counted]
    raise QuorumError(
        f"round {number}: {have} of {len(study.sites)} sites sent an update "
        f"({', '.join(silent)} did not), {needed} are needed; look into their logs, then "
        "resume the run"
    )
