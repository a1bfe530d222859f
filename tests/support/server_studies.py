"""A coordinator's study for tests of the round loop; a test changes fields by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flwr.serverapp import Grid

from cloister.protocol.signed_questions import Unsigned
from cloister.server.dispatch import Nodes, Timeouts
from cloister.server.ports import Observer, Participants
from cloister.server.report import RoundReport
from cloister.server.study import ServerStudy
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.strategy import ServerState


@dataclass(frozen=True, kw_only=True)
class Listed(Participants):
    """Participants whose nodes a test lists."""

    listed: Callable[[Grid], Nodes] | None = None
    there_since: Callable[[Grid], Mapping[int, str]] = lambda grid: {}

    def nodes(self, grid: Grid) -> Nodes:
        return super().nodes(grid) if self.listed is None else self.listed(grid)

    def since(self, grid: Grid) -> Mapping[int, str]:
        return self.there_since(grid)


@dataclass(frozen=True, kw_only=True)
class Telling(Observer):
    """An observer that passes its events on to a test's functions."""

    on_note: Callable[[str], None] = lambda text: None
    on_event: Callable[[str, int, str], None] = lambda what, number, site: None
    on_ready: Callable[[str], None] = lambda site: None
    on_refused: Callable[[str, str], None] = lambda site, why: None
    on_round: Callable[[RoundReport], None] = lambda report: None
    seen: list[RoundReport] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.on_note(text)

    def event(self, what: str, number: int, site: str) -> None:
        self.on_event(what, number, site)

    def site_ready(self, site: str) -> None:
        self.on_ready(site)

    def site_refused(self, site: str, why: str) -> None:
        self.on_refused(site, why)

    def round_closed(self, report: RoundReport) -> None:
        self.seen.append(report)
        self.on_round(report)


# Names under which tests give what participants are asked by.
OTHERWISE = {"sites": "names", "nodes": "listed", "since": "there_since"}


def changed(whole: ServerStudy, **changes: Any) -> ServerStudy:
    """A study with some of its fields, its participants' or its observer's replaced."""
    people = {f.name for f in fields(Listed)}
    told = {f.name for f in fields(Telling)}
    ports: dict[str, Any] = {}
    for key in list(changes):
        if OTHERWISE.get(key, key) in people:
            ports.setdefault("people", {})[OTHERWISE.get(key, key)] = changes.pop(key)
        elif key in told:
            ports.setdefault("told", {})[key] = changes.pop(key)
    return replace(
        whole,
        participants=replace(whole.participants, **ports.get("people", {})),
        observer=replace(whole.observer, **ports.get("told", {})),  # type: ignore[type-var]
        **changes,
    )


def server_study(
    state: ServerState,
    names: tuple[str, ...],
    /,
    *,
    num_rounds: int,
    patience: Timeouts,
    max_update_norm: float | None,
    **changes: Any,
) -> ServerStudy:
    """A study of federated averaging over one tensor, `w`, which scores and saves nothing."""
    whole = ServerStudy(
        digest="d",
        participants=Listed(names=names, patience=patience, voice=Unsigned()),
        observer=Telling(),
        strategy=FedAvg({}),
        state=state,
        num_rounds=num_rounds,
        min_sites=len(names),
        trained=lambda number: frozenset({"w"}),
        max_update_norm=max_update_norm,
        score=lambda state: {},
        save=lambda state, report: None,
    )
    return changed(whole, **changes)
