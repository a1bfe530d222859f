"""One study at the coordinator: our own loop over Flower's Grid, so that a run can be resumed.

Each round: send the global adapter to every site, wait for the updates until the deadline, check
them, aggregate, save, score, tell the observers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.errors import AdapterFormatError, QuorumError
from cloister.strategies.strategy import ServerState, Strategy

log = logging.getLogger(__name__)

# Seconds between looks for sites and for their replies: far below a round's seconds.
POLL = 0.1

# Relative error of a norm whose values were rounded to float32 on the wire (2⁻²⁴ each), with room
# for the sum's own rounding.
ROUNDING = 1e-6

SetScores = Mapping[str, Mapping[str, float]]  # by public data set, then by metric


@dataclass(frozen=True)
class RoundReport:
    """What a closed round came to.

    Attributes:
        round: From 1.
        metrics: Scores by set (`test`, `validation`) and name; empty where the round was not
            scored.
        epsilon: ε spent so far, by site, as the sites state it; ∞ without privacy.
        bytes_up: Bytes of all updates received.
        bytes_down: Bytes of the global adapter, times sites.
        seconds: From the first message to the saved state.
        seconds_scoring: Of these, evaluation.
        missing: Sites that did not answer with an update.
        update_norm: Norm of what the global adapter moved.
    """

    round: int
    metrics: SetScores
    epsilon: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    seconds: float
    seconds_scoring: float
    missing: tuple[str, ...]
    update_norm: float


@dataclass(frozen=True)
class ServerStudy:
    """What the coordinator knows of a study.

    Attributes:
        digest: Of its recipe.
        sites: Names of all sites.
        strategy: How updates are aggregated.
        state: Where to go on: before round 1, or a checkpoint's.
        num_rounds: When to end.
        min_sites: Fewest updates that close a round.
        round_timeout: Seconds that a round may take.
        trained: Names that travel in a round.
        max_update_norm: Bound that every site agreed to clip what it sends to; None: no bound.
        score: Scores an adapter on public data, or returns nothing where the round is not scored.
        save: Makes a state durable before the next round starts.
        stop_early: Whether the scores so far end the study.
        on_round: Told of each closed round.
    """

    digest: str
    sites: tuple[str, ...]
    strategy: Strategy
    state: ServerState
    num_rounds: int
    min_sites: int
    round_timeout: float
    trained: Callable[[int], frozenset[str]]
    max_update_norm: float | None
    score: Callable[[ServerState], SetScores]
    save: Callable[[ServerState], None]
    stop_early: Callable[[ServerState, SetScores], bool] = lambda state, metrics: False
    on_round: Callable[[RoundReport], None] = field(default=lambda report: None)


def run_study(grid: Grid, study: ServerStudy) -> ServerState:
    """Runs every round that is left.

    Returns:
        The final state.

    Raises:
        QuorumError: Too few sites answered in a round; the state of the last closed one is saved.
    """
    state = study.state
    while state.round < study.num_rounds:
        started = time.monotonic()
        number = state.round + 1
        payload = encode(state.adapter)
        nodes = _wait_for_sites(grid, study, started)
        messages = [
            Message(
                RecordDict(
                    {RECORD: ConfigRecord(RoundRequest(study.digest, number, payload).fields())}
                ),
                dst_node_id=node,
                message_type=MessageType.TRAIN,
                group_id=str(number),
            )
            for node in nodes
        ]
        replies = grid.send_and_receive(messages, timeout=study.round_timeout)
        names = study.trained(number)
        shapes = state.adapter.select(names).shapes
        updates, epsilon, received = _checked(replies, study, number, shapes)
        missing = tuple(site for site in study.sites if site not in updates)
        if len(updates) < study.min_sites:
            raise QuorumError(
                f"round {number}: {len(updates)} of {len(study.sites)} sites sent an update "
                f"({', '.join(missing)} did not), {study.min_sites} are needed; look into their "
                "logs, then resume the run"
            )
        before = state.adapter
        state = study.strategy.aggregate(state, updates)
        study.save(state)
        scored = time.monotonic()
        metrics = study.score(state)
        ended = time.monotonic()
        study.on_round(
            RoundReport(
                round=number,
                metrics=metrics,
                epsilon=epsilon,
                bytes_up=received,
                bytes_down=len(payload) * len(nodes),
                seconds=ended - started,
                seconds_scoring=ended - scored,
                missing=missing,
                update_norm=(state.adapter - before).norm(),
            )
        )
        if metrics and study.stop_early(state, metrics):
            break
    return state


def _wait_for_sites(grid: Grid, study: ServerStudy, started: float) -> list[int]:
    """Ids of the nodes that are there, once all sites are or the deadline is past."""
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= len(study.sites):
            return nodes
        if time.monotonic() - started > study.round_timeout:
            if len(nodes) >= study.min_sites:
                return nodes
            raise QuorumError(
                f"{len(nodes)} sites are connected after {study.round_timeout:.0f} s, "
                f"{study.min_sites} are needed; start the others, then resume the run"
            )
        time.sleep(POLL)


def _checked(
    replies: Iterable[Message],
    study: ServerStudy,
    number: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, Adapter], dict[str, float], int]:
    """Updates, ε and bytes of the replies that are what they must be; the others are logged."""
    updates: dict[str, Adapter] = {}
    epsilon: dict[str, float] = {}
    received = 0
    for message in replies:
        if not message.has_content():
            log.warning("round %d: a site failed, code %d", number, message.error.code)
            continue
        try:
            reply = RoundReply.from_fields(dict(message.content[RECORD]))
            if reply.status is not Status.TRAINED or reply.round != number:
                log.warning("round %d: %s: %s", number, reply.site or "a site", reply.status)
                continue
            if reply.site not in study.sites or reply.site in updates:
                raise AdapterFormatError(f"unexpected or repeated site {reply.site!r}")
            update = decode(reply.delta, shapes)
            bound = study.max_update_norm
            if bound is not None and update.norm() > bound * (1 + ROUNDING):
                raise AdapterFormatError(
                    f"{reply.site}: an update of norm {update.norm():.4g}, {bound:g} is the bound"
                )
            updates[reply.site] = update
        except (AdapterFormatError, KeyError) as error:
            log.warning("round %d: a reply was discarded: %s", number, error)
            continue
        epsilon[reply.site] = reply.epsilon
        received += len(reply.delta)
    return updates, epsilon, received
