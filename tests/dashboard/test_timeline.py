"""The timeline shows the state of a round at a site, from the journal and the closed rounds."""

from typing import Any

from cloister.dashboard.timeline import CellState, Timeline, timeline_of


def event(what: str, number: int, site: str = "a", at: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "time": f"2026-01-01T00:00:{at:02}+00:00",
        "what": what,
        "round": number,
        "site": site,
        **more,
    }


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"round": number, "missing": [], "refused": {}, "retired": [], **more}


def states(lanes: Timeline, site: str = "a") -> list[CellState]:
    return [cell.state for cell in lanes.lanes[site]]


def test_a_round_goes_from_training_to_sent() -> None:
    told = [event("asked", 1), event("asked", 1, "b"), event("answered", 1, "a", 4)]
    lanes = timeline_of(["a", "b", "c"], told, [], is_going=True)
    assert states(lanes) == [CellState.SENT]
    assert states(lanes, "b") == [CellState.TRAINING]
    assert states(lanes, "c") == [CellState.WAITING]
    assert lanes.lanes["a"][0].seconds == 4.0


def test_bars_are_shares_of_the_round_s_slowest() -> None:
    told = [
        event("asked", 1),
        event("asked", 1, "b"),
        event("answered", 1, "a", 4),
        event("answered", 1, "b", 16),
    ]
    lanes = timeline_of(["a", "b"], told, [], is_going=True)
    assert lanes.lanes["a"][0].share == 0.25
    assert lanes.lanes["b"][0].share == 1.0


def test_what_a_run_s_end_cut_off_is_not_training_for_ever() -> None:
    assert states(timeline_of(["a"], [event("asked", 1)], [], is_going=False)) == [
        CellState.CUT_OFF
    ]


def test_a_round_that_was_closed_without_an_answer_was_late() -> None:
    lanes = timeline_of(["a"], [event("asked", 1)], [row(1, missing=["a"])], is_going=True)
    assert states(lanes) == [CellState.LATE]


def test_an_answer_without_an_update_was_refused_or_spent() -> None:
    told = [event("asked", 1), event("answered", 1, at=2)]
    spent = timeline_of(["a"], told, [row(1, missing=["a"])], is_going=True)
    assert states(spent) == [CellState.SPENT]
    refused = row(1, missing=["a"], refused={"a": "too large"})
    assert states(timeline_of(["a"], told, [refused], is_going=True)) == [CellState.REFUSED]


def test_a_site_whose_budget_is_spent_stays_retired() -> None:
    told = [event("answered", 1), event("retired", 2), event("asked", 3), event("answered", 3)]
    lanes = timeline_of(["a"], told, [row(1), row(2), row(3)], is_going=True)
    assert states(lanes) == [CellState.SENT, CellState.RETIRED, CellState.RETIRED]


def test_a_round_that_was_asked_again_after_a_crash_counts_from_then() -> None:
    told = [
        event("asked", 1),
        event("lost", 1, at=9),
        event("asked", 1, at=20),
        event("answered", 1, at=21),
    ]
    lanes = timeline_of(["a"], told, [], is_going=True)
    assert states(lanes) == [CellState.SENT]
    assert lanes.lanes["a"][0].seconds == 1.0


def test_events_of_strangers_and_of_other_kinds_are_passed_over() -> None:
    told = [event("answered", 1, "stranger"), event("cheered", 1), {"what": "started"}]
    assert timeline_of(["a"], told, [], is_going=True).rounds == ()
