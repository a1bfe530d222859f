"""Runs a study's rounds at the coordinator, in a loop over Flower's Grid that can be resumed.

First it asks the sites whether they take part. Each round it sends the global adapter to those that
do, waits for updates until the deadline, checks, aggregates, saves and scores them, and tells the
observer.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from flwr.serverapp import Grid

from cloister.errors import QuorumError
from cloister.privacy.estimated_scores import evaluated_rounds
from cloister.server.collect import collector, secure_rounds
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.prepare import prepare
from cloister.server.replies import Replies, ReplyTerms
from cloister.server.report import RoundReport
from cloister.server.secure import SecureRounds
from cloister.server.study import ServerStudy
from cloister.strategies.strategy import ServerState, UpdateFilter


def run_study(grid: Grid, study: ServerStudy) -> ServerState:
    """Runs every round that is left.

    Returns:
        The final state.

    Raises:
        QuorumError: Too few sites take part, or answered in a round; the last closed round is
            saved.
    """
    state = study.state
    study.stop_early(state)  # the coordinator may have stopped before it kept the best adapter
    if state.round >= study.num_rounds and not study.owes_evaluation(state):
        return state
    epsilon: dict[str, float] = {}
    people, observer = study.participants, study.observer
    asker = Dispatcher(
        grid, people.nodes, people.patience, people.voice, observer.event, people.since
    )
    secure = secure_rounds(study, asker)
    gather = collector(study, asker, secure)
    prepared = prepare(study, asker)
    waits_for_all = study.secure is None and study.min_sites is None
    enough = study.enough - len(prepared.unfit) * waits_for_all
    if is_over(study, prepared.retired, state.round):
        return state
    evaluate = partial(_evaluate, study, asker, secure)
    if study.owes_evaluation(state):  # the coordinator stopped before the sites had answered
        fewest = 1 if secure is None else study.enough
        there = asker.connected(len(study.sites), fewest, time.monotonic())
        evaluate(state, prepared.among(there))
        if study.stop_early(state):
            return state
    while state.round < study.num_rounds:
        started = time.monotonic()
        number = state.round + 1
        payload = study.question(state.adapter, number)
        nodes = prepared.among(asker.connected(len(study.sites), enough, started))
        if len(nodes) < enough:
            raise QuorumError(
                f"{len(nodes)} sites are connected after {people.patience.round:.0f} s, "
                f"{enough} are needed; start the others, then resume the run"
            )
        gathered = gather(state, number, payload, nodes, started)
        replies = gathered.replies
        if is_over(study, replies.retired, state.round):
            break
        counts = is_counted(replies, study, number, prepared.unfit)
        epsilon |= replies.epsilon
        before, counted = state.adapter, dict(gathered.held)
        if counts and isinstance(study.strategy, UpdateFilter):
            for site, why in study.strategy.left_out(gathered.held).items():
                replies.refuse(site, number, why)
                counted.pop(site)
        aggregated = before
        if counts and gathered.close is not None:
            values = state.adapter.select(study.trained(number)).size
            known = study.noise(number, replies.counted, values)
            closed = gathered.close(study.delivery.inner(replace(state, noise_variance=known)))
            aggregated = closed.adapter
            state = study.delivery.after(state, study.rounded(study.settle(closed)))
        else:
            cut = gathered.why or f"cut off at {', '.join(sorted(replies.spent))}"
            observer.note(f"round {number} was charged and {cut}: it stays spent and is skipped")
            state = study.rounded(study.delivery.skip(state))
        report = RoundReport(
            round=number,
            metrics={},
            epsilon=dict(epsilon),
            received=dict(replies.received),
            bytes_up=replies.bytes,
            bytes_down=len(payload) * len(nodes),
            seconds=time.monotonic() - started,
            seconds_scoring=0.0,
            missing=tuple(
                s for s in study.sites if s not in replies.counted and s not in replies.retired
            ),
            retired=tuple(sorted(replies.retired)),
            refused=dict(replies.refused),
            update_norm=(state.adapter - before).norm(),
            aggregation_error=study.error and study.error(before, counted, aggregated),
        )
        study.save(state, report)
        scored = time.monotonic()
        metrics = study.score(state)
        ended = time.monotonic()
        observer.round_closed(
            replace(
                report,
                metrics=metrics,
                seconds=ended - started,
                seconds_scoring=ended - scored,
            )
        )
        evaluate(state, nodes)  # after the round's line is kept: the sites may take long
        if study.stop_early(state):
            break
    return state


def _evaluate(
    study: ServerStudy,
    asker: Dispatcher,
    secure: SecureRounds | None,
    state: ServerState,
    nodes: Nodes,
) -> None:
    """Has the sites evaluate a closed round's adapter, if that is due."""
    if study.evaluation is None or not study.evaluation.is_due(state):
        return
    terms = ReplyTerms(study.digest, study.sites, study.keys)
    found = study.evaluation.ask(asker, terms, nodes, state, study.delivery, secure)
    if found["sites"]:
        study.observer.evaluated(*evaluated_rounds([found]))
    else:
        study.observer.note(f"the private evaluation after round {state.round}: no estimate")


def is_over(study: ServerStudy, retired: Collection[str], closed: int) -> bool:
    """Whether too few sites have budget for another round; if so, the observer is told."""
    if set(retired).issuperset(study.sites):
        study.observer.note(f"every site's budget is spent: ending after round {closed}")
        return True
    if len(study.sites) - len(retired) < study.fewest:
        study.observer.note(
            f"fewer than {study.fewest} sites have budget, which this strategy "
            f"needs: ending after round {closed}"
        )
        return True
    return False


def is_counted(
    replies: Replies, study: ServerStudy, number: int, unfit: Collection[str] = ()
) -> bool:
    """Whether a round's updates are aggregated.

    Sites whose budget is spent or whose reply was invalid are not needed, unless the study states
    how many it needs. A round that was interrupted at too many sites is skipped, because these
    sites would answer `spent` again.

    Args:
        replies: The round's replies.
        study: The study.
        number: The round.
        unfit: Sites whose answer to the prepare question was invalid.

    Raises:
        QuorumError: Too few sites answered, and others still could.
    """
    excused = replies.retired | replies.spent | replies.unfit | set(unfit)
    have = len(replies.counted)
    needed = study.min_sites or sum(site not in excused for site in study.sites)
    if study.secure is not None:
        needed = study.enough
    if have or replies.unfit:
        needed = max(needed, study.fewest)
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
