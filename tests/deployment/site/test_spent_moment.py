"""`spent` leaves at the time of an update, so the time does not show where a round failed.

Where a round breaks depends on the records. Wards in which it breaks at once, in the middle, at
the end of the period and after the last step say one word at one moment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.client import round as site_round
from cloister.ledger.reservation import Reservation
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.client.test_differential import notes, study
from tests.support.models import tiny_bert
from tests.support.wards import Seen, Ward

Breaks = Callable[[pytest.MonkeyPatch, Ward, float], None]


def in_training(share: float) -> Breaks:
    """Local training that fails after so much of a period."""

    def breaks(patch: pytest.MonkeyPatch, ward: Ward, period: float) -> None:
        def local_update(*given: Any, **named: Any) -> None:
            ward.clock.now += share * period
            raise RuntimeError("a kernel that cannot")

        patch.setattr(site_round, "local_update", local_update)

    return breaks


def at_the_release(patch: pytest.MonkeyPatch, ward: Ward, period: float) -> None:
    """The round was trained, and the ledger cannot note what leaves."""

    def release(reservation: Reservation, payload: bytes) -> None:
        ward.clock.now += 0.01 * period
        raise OSError("no space left")

    patch.setattr(Reservation, "release", release)


BREAKS: dict[str, Breaks] = {
    "at once": in_training(0.0),
    "in the middle": in_training(0.5),
    "at the end": in_training(0.99),
    "at the release": at_the_release,
}


def test_a_spent_round_is_told_at_one_moment_wherever_it_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_bert(tmp_path / "base")
    recipe = study(base)
    proofs = tmp_path / "proofs.json"
    lives: dict[str, list[Seen]] = {}
    for name, breaks in {"not at all": None, **BREAKS}.items():
        ward = Ward.open(tmp_path / name, notes(), base, monkeypatch, proofs=proofs)
        prepared = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        proofs.write_bytes(ward.proofs.read_bytes())
        admitted = ward.agent._sites.admitted
        assert admitted is not None
        question = RoundRequest(recipe.digest(), 1, ward.adapter)
        with monkeypatch.context() as patch:
            if breaks is not None:
                breaks(patch, ward, admitted[1].period)
            lives[name] = [prepared, ward.ask(recipe, question)]
        lives[name].append(ward.ask(recipe, question))  # asked again: it is not trained again
    sound = lives.pop("not at all")
    assert [seen.said[2] for seen in sound] == [Status.READY, *[Status.TRAINED] * 2]
    for name, life in lives.items():
        assert life == lives["at once"], name
        assert [seen.said[2] for seen in life] == [Status.READY, *[Status.SPENT] * 2], name
        assert [seen.left for seen in life[:2]] == [seen.left for seen in sound[:2]], name
