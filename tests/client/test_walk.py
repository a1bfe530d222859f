"""A reader reaches the release of an update from its question in few files and calls.

A stop is a function of `cloister/client`, or a function of the ledger or of training that one of
these calls: what has to be read to see what is decoded, charged, trained and released, in which
order. What these call in turn is each room's own; values (adapters, plans, messages) are no stops.

The admission has a bound of its own. It runs once a study and charges nothing, so whoever asks what
a round spends and releases reads `run_round` alone; whoever asks what a site accepts reads `admit`
alone. One bound over both would let either grow at the other's cost.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from cloister.client import admission, app
from cloister.client.admission import Admitted, Prove
from cloister.client.site import Site
from cloister.protocol.exchange import RoundReply, RoundRequest, Step
from cloister.server.run_directory import RunDirectory
from cloister.simulation import study
from cloister.simulation.run import simulate
from cloister.training.workspace import Workspace
from tests.support.studies import small_recipe

MOST_STOPS = 28
MOST_ADMISSION_STOPS = 27


def room(frame: FrameType | None) -> str:
    """The room that a function is of; empty: none of the package's."""
    parts = Path(frame.f_code.co_filename).parts if frame is not None else ()
    return parts[-2] if len(parts) > 2 and parts[-3] == "cloister" else ""


@contextmanager
def noted() -> Iterator[list[str]]:
    """The stops of what runs inside, each once, in the order in which they are first reached."""
    seen: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        here = room(frame)
        entered = here in ("ledger", "training") and room(frame.f_back) == "client"
        # Comprehensions are functions before Python 3.12 alone; a reader sees no call there.
        is_named = not frame.f_code.co_name.startswith("<")
        if event == "call" and is_named and (here == "client" or entered):
            seen.setdefault(frame.f_code.co_qualname)

    stops: list[str] = []
    sys.setprofile(note)
    try:
        yield stops
    finally:
        sys.setprofile(None)
        stops += seen


@dataclass(frozen=True)
class Walks:
    """Of one study: the walks of every admission and of every question to train."""

    admissions: list[list[str]]
    rounds: list[list[str]]


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Walks:
    """The walks of a simulated study of two sites and one round."""
    place, found = tmp_path_factory.mktemp("walk"), Walks([], [])
    run_round, admit = app.run_round, study.admit

    def walked_round(
        admitted: Admitted, request: RoundRequest, on_step: Callable[[], None]
    ) -> RoundReply:
        with noted() as stops:
            reply = run_round(admitted, request, on_step)
        if request.step is Step.TRAIN:
            found.rounds.append(stops)
        return reply

    def walked_admission(site: Site, workspace: Workspace, prove: Prove) -> Admitted:
        with noted() as stops:
            admitted = admit(site, workspace)  # as at an institution, which finds no kept proof
        found.admissions.append(stops)
        return admitted

    # Else the walk is shorter where another test of this process asked for the same plan's epsilon.
    admission.agreed_epsilon.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "run_round", walked_round)
        patch.setattr(study, "admit", walked_admission)
        recipe = small_recipe(place / "study", "federation.num_rounds=1", base=bert)
        simulate(recipe, RunDirectory.create(place / "run", recipe))
    return found


def test_a_private_round_is_a_short_walk_in_the_order_that_the_guarantee_needs(
    walks: Walks,
) -> None:
    walk = walks.rounds[0]
    assert all(one == walk for one in walks.rounds)
    assert len(walk) <= MOST_STOPS, " ".join(walk)
    order = ["run_round", "_decoded", "Ledger.reserve", "local_update", "Reservation.release"]
    assert [stop for stop in walk if stop in order] == order


def test_an_admission_is_a_short_walk_that_charges_nothing(walks: Walks) -> None:
    walk = max(walks.admissions, key=len)
    assert walk
    assert len(walk) <= MOST_ADMISSION_STOPS, " ".join(walk)
    order = ["admit", "check", "agreed_epsilon", "Ledger.check", "_proven"]
    assert [stop for stop in walk if stop in order] == order
    assert not {"Ledger.reserve", "Reservation.release", "local_update"} & set(walk)
