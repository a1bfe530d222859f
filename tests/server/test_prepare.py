"""Sites are asked once, before the rounds and with a deadline, whether they take part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from cloister.errors import QuorumError
from cloister.protocol.exchange import RoundReply, Status
from cloister.protocol.signed_questions import Unsigned
from cloister.server.dispatch import Dispatcher, Timeouts
from cloister.server.prepare import prepare
from cloister.server.report import RoundReport
from cloister.server.rounds import run_study
from cloister.strategies.strategy import ServerState
from tests.server.test_rounds import ONE, good, grid, ready, study
from tests.support.clock import Answer, Clock, TimedGrid


@dataclass
class Told:
    """What the observers were told."""

    ready: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def observers(self) -> dict[str, object]:
        """The study's fields that tell it."""
        return {"on_ready": self.ready.append, "on_refused": self.refused.__setitem__}


def but(site: str, **changes: object) -> Callable[[str], Mapping[str, object]]:
    """Everybody is ready but one."""
    return lambda one: {**ready(one), **(changes if one == site else {})}


def test_every_site_is_asked_once_and_before_the_first_round() -> None:
    asked: list[tuple[str, int]] = []
    events: list[tuple[str, int, str]] = []

    def prepared(site: str) -> Mapping[str, object]:
        asked.append((site, 0))
        return ready(site)

    def answer(site: str, number: int) -> Mapping[str, object]:
        asked.append((site, number))
        return good(site, number)

    seen = Told()
    run_study(
        grid(answer, prepared=prepared),
        study(**seen.observers, on_event=lambda *event: events.append(event)),
    )
    assert asked == [(site, number) for number in (0, 1, 2) for site in "abc"]
    assert (seen.ready, seen.refused) == (["a", "b", "c"], {})
    assert [what for what, number, _ in events if number == 0] == ["preparing"] * 3
    assert all(what != "preparing" for what, number, _ in events if number)


def test_a_study_that_is_done_asks_nobody() -> None:
    def nobody(site: str) -> Mapping[str, object]:
        raise AssertionError(site)

    final = run_study(grid(good, prepared=nobody), study(num_rounds=0))
    assert final.round == 0


SAYS: dict[str, tuple[dict[str, object], str]] = {
    "refused": ({"status": "refused"}, "it says: refused"),
    "failed, as older sites do": ({"status": "failed"}, "it says: failed"),
    "an update": ({"status": "trained"}, "it says: trained"),
    "ready, and more": ({"delta": b"21"}, "are expected"),
    "ready for another question": ({"round": 1}, "the answer is to round 1"),
    "a word of its own": ({"status": "perhaps"}, "unknown status"),
}


@pytest.mark.parametrize(("changes", "why"), SAYS.values(), ids=SAYS.keys())
def test_who_takes_no_part_is_asked_for_no_round(changes: dict[str, object], why: str) -> None:
    asked: set[str] = set()
    reports: list[RoundReport] = []

    def answer(site: str, number: int) -> Mapping[str, object]:
        asked.add(site)
        return good(site, number)

    seen = Told()
    final = run_study(
        grid(answer, prepared=but("c", **changes)),
        study(**seen.observers, on_round=reports.append),
    )
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    assert asked == {"a", "b"}
    assert seen.ready == ["a", "b"]
    ((_, said),) = seen.refused.items()
    assert why in said
    assert [report.missing for report in reports] == [("c",), ("c",)]


def test_too_few_that_take_part_end_the_study_before_its_first_round() -> None:
    def answer(site: str, number: int) -> Mapping[str, object]:
        raise AssertionError("a round was asked for")

    refusing = grid(answer, prepared=but("c", status="refused"))
    with pytest.raises(QuorumError, match=r"2 of 3 .* 3 are needed: c \(it says: refused\)"):
        run_study(refusing, study(min_sites=None))
    with pytest.raises(QuorumError, match=r"2 of 3 .* 3 are needed: c \(it says: refused\)"):
        run_study(refusing, study(min_sites=3))


def test_a_budget_that_covers_no_round_is_excused() -> None:
    notes: list[str] = []
    spent = {"status": "budget"}

    def answer(site: str, number: int) -> Mapping[str, object]:
        empty = RoundReply(site, number, Status.BUDGET, b"", 0.0, "").fields()
        return empty if site == "c" else good(site, number)

    final = run_study(grid(answer, prepared=but("c", **spent)), study(min_sites=None))
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    everybody = grid(good, prepared=lambda site: {**ready(site), **spent})
    assert run_study(everybody, study(on_note=notes.append)).round == 0
    assert notes == ["every site's budget is spent: ending after round 0"]


@pytest.mark.parametrize("before", ["", "a", "ac", "abc"])
def test_a_resumed_study_asks_those_that_had_not_said_that_they_take_part(before: str) -> None:
    seen, asked = Told(), list[str]()
    reports: list[RoundReport] = []

    def prepared(site: str) -> Mapping[str, object]:
        asked.append(site)
        return ready(site)

    resumed = study(
        state=ServerState(ONE, 1),
        ready=frozenset(before),
        nodes=lambda grid: {2: "a", 3: "b", 4: "c"},
        on_round=reports.append,
        **seen.observers,
    )
    run_study(grid(good, prepared=prepared), resumed)
    assert asked == seen.ready == sorted({"a", "b", "c"} - set(before))
    assert [(report.round, report.missing) for report in reports] == [(2, ())]


def test_who_refuses_a_resumed_study_is_told_and_who_was_ready_still_counts() -> None:
    resumed = study(ready=frozenset("ab"), nodes=lambda grid: {2: "a", 3: "b", 4: "c"}, min_sites=3)
    with pytest.raises(QuorumError, match=r"2 of 3 .* 3 are needed: c \(it says: refused\)"):
        run_study(grid(good, prepared=but("c", status="refused")), resumed)


def test_preparing_has_a_deadline_of_its_own() -> None:
    """A download takes longer than a round; who never answers is not waited for much longer."""
    clock = Clock()
    answers: dict[int, Answer] = {2: lambda count: (50.0, True), 3: lambda count: None}
    asker = Dispatcher(
        TimedGrid(clock, answers),
        lambda _: {2: "site 2", 3: "site 3"},
        Timeouts(5.0),
        Unsigned(),
        clock=clock,
        wait=clock.wait,
    )
    two = study(min_sites=1, prepare_timeout=90.0, sites=("site 2", "site 3"))
    with pytest.raises(QuorumError, match=r"site 2 \(.*\), site 3 \(no answer\)"):
        prepare(two, asker)
    assert clock.now == pytest.approx(90.0)


def test_a_forged_refusal_costs_nobody_else_its_place() -> None:
    """The node of c says in a's name that it takes no part: that speaks against c alone."""
    reports: list[RoundReport] = []

    def forged(site: str) -> Mapping[str, object]:
        return {**ready("a"), "status": "refused"} if site == "c" else ready(site)

    seen = Told()
    final = run_study(
        grid(good, prepared=forged),
        study(
            nodes=lambda grid: {2: "a", 3: "b", 4: "c"},
            **seen.observers,
            on_round=reports.append,
        ),
    )
    assert seen.ready == ["a", "b"]
    assert seen.refused == {"c": "the node of c answers in the name of a"}
    assert [report.missing for report in reports] == [("c",), ("c",)]
    assert final.round == 2
