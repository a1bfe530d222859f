"""The two ports of a coordinator: who takes part and how they are asked, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from cloister.server.dispatch import Nodes, Timeouts
from cloister.server.report import RoundReport, SetScores
from cloister.server.voice import Voice

log = logging.getLogger(__name__)

# Seconds in which connected sites must say whether they take part: as for a round (Flower's own
# default for one exchange), in which a site on a line of 50 Mbit/s fetches a base of 20 GB. Who
# takes longer comes in with the round at hand.
PREPARE_TIMEOUT = 3600.0


@dataclass(frozen=True, kw_only=True)
class Participants:
    """The sites of a study, and how they are asked.

    Attributes:
        names: Of all sites, in order.
        patience: How long a round waits for them.
        voice: How questions are signed; a simulation says that they are not.
        prepare_timeout: How long, in seconds, sites may take to say whether they take part.
        ready: Sites that said, before the run was interrupted, that they take part: they are not
            asked again, and prepare for their next round where they have been started anew.
        keys: Public keys of the sites' ledgers, which sign what they send; None: not checked.
        ranks: Those that a site's adapters may have, where they differ.
    """

    names: tuple[str, ...]
    patience: Timeouts
    voice: Voice
    prepare_timeout: float = PREPARE_TIMEOUT
    ready: frozenset[str] = frozenset()
    keys: Mapping[str, str] | None = None
    ranks: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def nodes(self, grid: Grid) -> Nodes:
        """The connected nodes, with their sites where the node's key tells which they are."""
        return dict.fromkeys(sorted(grid.get_node_ids()), "")

    def since(self, grid: Grid) -> Mapping[int, str]:
        """When each node connected, where that can be told (`server.dispatch`)."""
        return {}


class Observer:
    """Who is told what happens in a study. This one logs what is out of the ordinary, no more."""

    def note(self, text: str) -> None:
        """Takes a message about something unusual, such as a round that was skipped."""
        log.warning("%s", text)

    def warning(self, text: str) -> None:
        """Takes a warning about something allowed that is probably a mistake."""
        log.warning("%s", text)

    def untrained(self, scores: SetScores) -> None:
        """Takes the scores of the adapter that round 1 starts from, by public set."""

    def event(self, what: str, number: int, site: str) -> None:
        """Takes what happened to a site in a round (`server.dispatch`).

        In round 0 the site prepares, or its operator has yet to approve the study.
        """

    def site_ready(self, site: str) -> None:
        """Takes the name of a site that takes part, as it says so."""

    def site_refused(self, site: str, why: str) -> None:
        """Takes, before the first round, who takes no part, and why."""

    def round_closed(self, report: RoundReport) -> None:
        """Takes the report of a round whose state is saved."""
