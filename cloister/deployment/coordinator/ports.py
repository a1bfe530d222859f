"""A deployed coordinator's two ports: members behind the gate, and the journal of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.deployment.coordinator.journal import change_run, note
from cloister.deployment.coordinator.members import Member
from cloister.privacy.estimated_scores import EvaluatedRound
from cloister.server.coordinator import RunObserver
from cloister.server.ports import Participants
from cloister.server.report import RoundReport, SetScores


class Journal(RunObserver):
    """Writes the events into the run's folder.

    Args:
        recipe: The study.
        run: The run's folder.
    """

    def note(self, text: str) -> None:
        """Writes an unusual event."""
        note(self.run.path, "note", text=text)

    def warning(self, text: str) -> None:
        """Writes a warning of the study, such as a score no better than guessing."""
        note(self.run.path, "note", text=f"warning: {text}")

    def untrained(self, scores: SetScores) -> None:
        """Notes the scores of the untrained adapter."""
        plain = {name: dict(found) for name, found in scores.items()}
        note(self.run.path, "untrained", round=0, scores=plain)

    def evaluated(self, found: EvaluatedRound) -> None:
        """Notes the estimates of a private evaluation, in words."""
        note(self.run.path, "evaluated", round=found.round, estimate=str(found))

    def event(self, what: str, number: int, site: str) -> None:
        """Notes what happened to a site."""
        note(self.run.path, what, round=number, site=site)

    def site_ready(self, site: str) -> None:
        """Notes that a site takes part: it is not asked again when the run goes on."""
        note(self.run.path, "ready", round=0, site=site)

    def site_refused(self, site: str, why: str) -> None:
        """Notes that a site takes no part, and why."""
        note(self.run.path, "refused", round=0, site=site, text=why)

    def round_closed(self, report: RoundReport) -> None:
        """Writes the round's figures, and resets the count of restarts."""
        super().round_closed(report)
        path, number = self.run.path, report.round
        change_run(path, resumed=0)
        for site, why in report.refused.items():
            note(path, "refused", round=number, site=site, text=why)
        for site in report.retired:
            note(path, "retired", round=number, site=site)
        scores = {name: dict(found) for name, found in report.metrics.items()}
        seconds = round(report.seconds, 2)
        note(path, "closed", round=number, scores=scores, seconds=seconds, bytes=report.bytes_up)


@dataclass(frozen=True, kw_only=True)
class Connected(Participants):
    """The members of a study, as they are connected through the gate.

    Attributes:
        members: Those that take part, by name.
        allowed: Returns the present members; a site that was revoked since is not asked again.
    """

    members: Mapping[str, Member]
    allowed: Callable[[], Mapping[str, Member]]

    def nodes(self, grid: Grid) -> dict[int, str]:
        """The members' nodes that are online."""
        assert isinstance(grid, HttpGrid)
        now = self.allowed()
        sites = {now[name].node_key: name for name in self.members if name in now}
        online = {info.node_id: bytes(info.public_key).decode() for info in grid.get_nodes()}
        return {node: sites[key] for node, key in online.items() if key in sites}

    def since(self, grid: Grid) -> dict[int, str]:
        """When each node that is online connected."""
        assert isinstance(grid, HttpGrid)
        return {info.node_id: info.last_activated_at for info in grid.get_nodes()}
