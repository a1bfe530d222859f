"""Asks every site once for its certificate when a study ends, and checks each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from flwr.serverapp import Grid

from cloister.evidence.certificate_alone import MOST_BYTES, check_alone
from cloister.protocol.exchange import RoundRequest, Step
from cloister.server.dispatch import Dispatcher
from cloister.server.replies import Awaited, ReplyTerms, read_replies
from cloister.server.study import ServerStudy

Fields = Mapping[str, Any]


def collect_certificates(
    grid: Grid, study: ServerStudy, number: int, most_steps: int
) -> dict[str, tuple[bytes, Fields]]:
    """Asks every site that is connected.

    Args:
        grid: Flower's.
        study: The study; its keys are those of its members' ledgers.
        number: The last closed round.
        most_steps: The most steps that a plan of the study has.

    Returns:
        Each valid certificate by site, as bytes and as fields. A site that sent none, or an invalid
        one, is left out: its promise is unknown.
    """
    keys, found = study.keys or {}, dict[str, tuple[bytes, Fields]]()

    def awaited(site: str) -> Awaited[tuple[bytes, Fields]]:
        check = partial(
            check_alone, site=site, study=study.digest, key=keys[site], most_steps=most_steps
        )
        return Awaited(MOST_BYTES, lambda payload: (payload, check(payload)))

    people = study.participants
    asker = Dispatcher(grid, people.nodes, people.patience, people.voice, since=people.since)
    started = time.monotonic()
    nodes = asker.connected(len(study.sites), 1, started)
    request = RoundRequest(study.digest, number, b"", Step.CERTIFY)
    read_replies(
        asker.ask(request, nodes, len(nodes), started),
        ReplyTerms(study.digest, study.sites, study.keys),
        number,
        awaited,
        found.__setitem__,
    )
    return found
