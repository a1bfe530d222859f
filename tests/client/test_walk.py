"""How far a reader walks from a question to what is released for it.

A stop is a function of `cloister/client`, or a function of the ledger or of training that one of
these calls: what has to be read to see what is decoded, charged, trained and released, in which
order. What these call in turn is each room's own; values (adapters, plans, messages) are no stops.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from cloister.client import app
from cloister.client.admission import Admitted
from cloister.protocol.exchange import RoundReply, RoundRequest, Step
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from tests.support.studies import small_recipe

MOST_STOPS = 25


def room(frame: FrameType | None) -> str:
    """The room that a function is of; empty: none of the package's."""
    parts = Path(frame.f_code.co_filename).parts if frame is not None else ()
    return parts[-2] if len(parts) > 2 and parts[-3] == "cloister" else ""


def test_a_private_round_is_a_short_walk_in_the_order_that_the_guarantee_needs(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[list[str]] = []
    run_round = app.run_round

    def walked(
        admitted: Admitted, request: RoundRequest, on_step: Callable[[], None]
    ) -> RoundReply:
        seen: list[str] = []

        def note(frame: FrameType, event: str, _: object) -> None:
            here = room(frame)
            entered = here in ("ledger", "training") and room(frame.f_back) == "client"
            if event == "call" and (here == "client" or entered):
                seen.append(frame.f_code.co_qualname)

        sys.setprofile(note)
        try:
            return run_round(admitted, request, on_step)
        finally:
            sys.setprofile(None)
            if request.step is Step.TRAIN:
                walks.append(list(dict.fromkeys(seen)))

    monkeypatch.setattr(app, "run_round", walked)
    recipe = small_recipe(tmp_path / "study", "federation.num_rounds=1", base=bert)
    simulate(recipe, RunDirectory.create(tmp_path / "run", recipe))
    walk = walks[0]
    assert all(one == walk for one in walks)
    assert len(walk) <= MOST_STOPS, walk
    order = ["run_round", "_decoded", "Ledger.reserve", "local_update", "Reservation.release"]
    assert [stop for stop in walk if stop in order] == order
