"""The coordinator's two interfaces: a study's participants, and the observer of its events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from cloister.privacy.estimated_scores import EvaluatedRound
from cloister.server.dispatch import Nodes, Timeouts
from cloister.server.report import RoundReport, SetScores
from cloister.server.voice import Voice

log = logging.getLogger(__name__)

# Seconds in which connected sites must say whether they take part: Flower's default for one
# exchange, in which a site with 50 Mbit/s downloads a base of 20 GB. A slower site joins in a later
# round.
PREPARE_TIMEOUT = 3600.0


@dataclass(frozen=True, kw_only=True)
class Participants:
    """The sites of a study, and how they are asked.

    Attributes:
        names: Names of all sites, in order.
        patience: How long a round waits for them.
        voice: Signs the questions; a simulation's are unsigned.
        prepare_timeout: How long, in seconds, sites may take to say whether they take part.
        ready: Sites that said before an interruption that they take part. They are not asked again;
            a restarted site prepares itself when it gets its next round.
        keys: Public keys of the sites' ledgers, which sign what they send; None: not checked.
        ranks: The ranks that a site's adapters may have, in a study of mixed ranks.
    """

    names: tuple[str, ...]
    patience: Timeouts
    voice: Voice
    prepare_timeout: float = PREPARE_TIMEOUT
    ready: frozenset[str] = frozenset()
    keys: Mapping[str, str] | None = None
    ranks: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def nodes(self, grid: Grid) -> Nodes:
        """The connected nodes, with their sites where the node's key identifies them."""
        return dict.fromkeys(sorted(grid.get_node_ids()), "")

    def since(self, grid: Grid) -> Mapping[int, str]:
        """When each node connected, where that is known (`server.dispatch`)."""
        return {}


class Observer:
    """Receives the events of a study. This base class only logs unusual ones."""

    def note(self, text: str) -> None:
        """Takes a message about something unusual, such as a round that was skipped."""
        log.warning("%s", text)

    def warning(self, text: str) -> None:
        """Takes a warning about something allowed that is probably a mistake."""
        log.warning("%s", text)

    def untrained(self, scores: SetScores) -> None:
        """Takes the scores of the adapter that round 1 starts from, by public set."""

    def evaluated(self, found: EvaluatedRound) -> None:
        """Takes the estimates of a private evaluation."""

    def event(self, what: str, number: int, site: str) -> None:
        """Takes what happened to a site in a round (`server.dispatch`).

        In round 0 the site prepares, or its operator has not approved the study yet.
        """

    def site_ready(self, site: str) -> None:
        """Takes the name of a site when it says that it takes part."""

    def site_refused(self, site: str, why: str) -> None:
        """Takes, before the first round, the name of a site that does not take part, and why."""

    def round_closed(self, report: RoundReport) -> None:
        """Takes the report of a round whose state is saved."""
