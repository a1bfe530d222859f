"""Offers the final adapter once to every site that took part, after the last round."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flwr.serverapp import Grid

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.protocol.delivery import Claim
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Awaited, ReplyTerms, read_replies
from cloister.server.study import ServerStudy

# Most seconds that the end of a run waits for sites that are not connected, and for all answers.
# The adapter is as long as a round's question, which connected sites fetch every round.
ABSENT, LONGEST = 60.0, 600.0


@dataclass(frozen=True)
class Delivered:
    """The sites' answers to the offer.

    Attributes:
        taken: Sites that have the adapter.
        refused: Why each other site that answered does not have it.
    """

    taken: frozenset[str]
    refused: Mapping[str, str]


def deliver(
    grid: Grid, study: ServerStudy, sites: frozenset[str], adapter: Adapter, claim: Claim
) -> Delivered:
    """Offers an adapter to sites; a site that is gone or refuses does not get it.

    A site of an older version does not know the question and refuses it.

    Args:
        grid: Flower's.
        study: The study.
        sites: Names of those that took part.
        adapter: The final adapter, as a round sends it.
        claim: Its score and rounds, as the coordinator states them.
    """
    people = study.participants
    absent = ABSENT if people.patience.absent is None else min(people.patience.absent, ABSENT)
    longest = min(people.patience.round, LONGEST)
    patience = replace(people.patience, round=longest, absent=absent)

    def nodes(grid: Grid) -> Nodes:
        return {node: site for node, site in people.nodes(grid).items() if site in sites}

    taken: set[str] = set()
    asker = Dispatcher(grid, nodes, patience, people.voice, since=people.since)
    started = time.monotonic()
    there = asker.connected(len(sites), 0, started)
    request = RoundRequest(
        study.digest, claim.rounds, encode(adapter), Step.DELIVER, claim.to_bytes()
    )
    replies = read_replies(
        asker.ask(request, there, 0, started),
        ReplyTerms(study.digest, study.sites, study.keys),
        claim.rounds,
        lambda site: Awaited(0, lambda payload: None),
        lambda site, nothing: taken.add(site),
        wanted=Status.READY,
    )
    spent = dict.fromkeys(replies.retired, "it says: budget")
    return Delivered(frozenset(taken), {**replies.refused, **spent})
