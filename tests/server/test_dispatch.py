"""The coordinator takes answers in time, and waits for no site beyond the deadline."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.protocol.exchange import RoundRequest, Step
from cloister.protocol.signed_questions import Unsigned
from cloister.server.dispatch import (
    POLL,
    RECONNECTED_MOST,
    RECONNECTED_POLL,
    RECONNECTED_TIMES,
    Dispatcher,
    Nodes,
    Timeouts,
)
from tests.support.clock import Answer, Clock, TimedGrid, reply_to
from tests.support.examples import tries

REQUEST = RoundRequest("d", 1, b"")
SITES = {2: "a", 3: "b", 4: "c"}


def after(seconds: float | None, *more: float | None, good: bool = True) -> Answer:
    """Answers the n-th question after so many seconds; the last entry holds from then on."""
    times = (seconds, *more)

    def answer(count: int) -> tuple[float, bool] | None:
        when = times[min(count, len(times) - 1)]
        return None if when is None else (when, good)

    return answer


def never(count: int) -> None:
    return None


def lost_once(one: "Round") -> Answer:
    """From now on: the next question never arrives, the others are answered after 5 s."""
    seen = sum(node == 3 for _, node in one.grid.asked)
    return lambda count: None if count == seen else (5.0, True)


def lost_then(lost: float, then: float) -> Answer:
    return lambda count: (lost, False) if count == 0 else (then, True)


@dataclass
class Round:
    """One round's asking, and all that was told of it."""

    answers: Mapping[int, Answer]
    patience: Timeouts
    there: Callable[[float], Nodes] = lambda now: SITES
    since: Callable[[float], Mapping[int, str]] = lambda now: {}
    refuses: Callable[[float], set[int]] = lambda now: set()
    clock: Clock = field(default_factory=Clock)
    events: list[tuple[str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grid = TimedGrid(self.clock, self.answers, self.refuses)
        self.asker = Dispatcher(
            self.grid,
            lambda grid: self.there(self.clock.now),
            self.patience,
            Unsigned(),
            lambda what, number, site: self.events.append((what, number, site)),
            lambda grid: self.since(self.clock.now),
            self.clock,
            self.clock.wait,
        )

    def ask(self, number: int = 1, enough: int = 3, step: Step = Step.TRAIN) -> dict[str, bool]:
        """Who answered, and whether with content."""
        request = RoundRequest("d", number, b"", step)
        nodes = {node: SITES[node] for node in self.answers}
        came = list(self.asker.ask(request, nodes, enough, self.clock.now))
        assert len({site for site, _ in came}) == len(came)
        return {site: message.has_content() for site, message in came}


def test_all_answer_and_nobody_waits_longer() -> None:
    one = Round({2: after(1.0), 3: after(2.0), 4: after(3.0)}, Timeouts(100.0))
    assert one.ask() == {"a": True, "b": True, "c": True}
    assert 3.0 <= one.clock.now <= 3.0 + 2 * POLL
    assert [what for what, _, _ in one.events] == ["asked"] * 3 + ["answered"] * 3


def test_one_that_never_answers_is_waited_for_until_the_deadline_exactly() -> None:
    one = Round({2: after(1.0), 3: never}, Timeouts(7.77))
    assert one.ask() == {"a": True}
    assert one.clock.now == pytest.approx(7.77, abs=1e-9)


def test_an_answer_at_the_deadline_counts_and_one_after_it_does_not() -> None:
    one = Round({2: after(5.0), 3: after(5.0001)}, Timeouts(5.0))
    assert one.ask() == {"a": True}


def test_a_lost_answer_is_asked_for_again() -> None:
    one = Round({2: after(1.0), 3: lost_then(2.0, 1.0)}, Timeouts(100.0, 30.0, again=5.0))
    assert one.ask() == {"a": True, "b": True}
    assert [node for _, node in one.grid.asked] == [2, 3, 3]
    assert one.grid.asked[2][0] == pytest.approx(7.0, abs=2 * POLL)
    assert [what for what, _, site in one.events if site == "b"] == [
        "asked",
        "lost",
        "asked",
        "answered",
    ]


def test_without_patience_for_it_an_error_is_an_answer() -> None:
    one = Round({2: after(1.0), 3: lost_then(2.0, 1.0)}, Timeouts(100.0))
    assert one.ask() == {"a": True, "b": False}
    assert len(one.grid.asked) == 2


def test_one_that_only_errs_is_reported_as_lost_at_the_deadline() -> None:
    one = Round({2: after(1.0, good=False)}, Timeouts(20.0, 60.0, again=5.0))
    assert one.ask(enough=1) == {"a": False}
    assert one.clock.now == pytest.approx(20.0, abs=1e-9)
    assert len(one.grid.asked) == 4  # at 0, 6, 12, 18


def test_a_node_that_goes_and_comes_back_is_asked_when_it_is_there() -> None:
    one = Round(
        {2: after(1.0), 3: lost_then(2.0, 1.0)},
        Timeouts(100.0, 60.0, again=5.0),
        there=lambda now: SITES if not 2 <= now < 40 else {2: "a"},
    )
    assert one.ask(enough=1) == {"a": True, "b": True}
    assert one.grid.asked[-1][0] == pytest.approx(40.0, abs=2 * POLL)


def test_a_node_that_stays_away_is_not_waited_for_where_the_others_are_enough() -> None:
    answers = {2: after(1.0), 3: after(1.0), 4: lost_then(2.0, 1.0)}
    gone = Timeouts(1000.0, absent=30.0, again=5.0)
    there = lambda now: SITES if now < 2 else {2: "a", 3: "b"}  # noqa: E731
    enough = Round(answers, gone, there)
    assert enough.ask(enough=2) == {"a": True, "b": True, "c": False}
    assert enough.clock.now == pytest.approx(37.0, abs=3 * POLL)
    too_few = Round(answers, gone, there)
    assert too_few.ask(enough=3) == {"a": True, "b": True, "c": False}
    assert too_few.clock.now == pytest.approx(1000.0, abs=1e-6)


def test_a_node_that_connected_anew_is_asked_again_at_once() -> None:
    """It lost the question; Flower notices only after a minute."""
    one = Round(
        {2: after(1.0), 3: after(90.0, 1.0)},
        Timeouts(200.0, 60.0, again=5.0),
        since=lambda now: {2: "first", 3: "first" if now < 10 else "second"},
    )
    assert one.ask() == {"a": True, "b": True}
    assert one.clock.now < 11 + RECONNECTED_POLL + 4 * POLL
    one.clock.now = 95.0
    assert one.ask(2) == {"a": True, "b": True}
    assert ("late", 1, "b") in one.events  # the first question's answer, told and dropped


def test_a_list_of_nodes_that_takes_long_is_asked_for_less_often() -> None:
    looked: list[float] = []
    one = Round({2: after(90.0), 3: after(1.0)}, Timeouts(200.0))

    def since(now: float) -> Mapping[int, str]:
        looked.append(now)
        one.clock.now += 0.5
        return {}

    one.since = since
    one.ask()
    pauses = [later - earlier for earlier, later in itertools.pairwise(looked[1:])]
    assert len(pauses) >= 5
    assert all(RECONNECTED_TIMES * 0.5 < pause < 13 for pause in pauses)


def test_a_node_that_connects_after_the_superlink_s_restart_is_asked_again_soon() -> None:
    """The list of nodes came only when the SuperLink was back, half a minute later."""
    one = Round(
        {2: after(1.0), 3: after(None, 1.0)},
        Timeouts(1000.0, again=5.0),
        since=lambda now: {2: "first", 3: "first" if now < 50 else "second"},
    )
    since, slow = one.since, [30.0]

    def restarting(now: float) -> Mapping[int, str]:
        if now > 1 and slow:
            one.clock.wait(slow.pop())
        return since(now)

    one.since = restarting
    assert one.ask() == {"a": True, "b": True}
    assert one.clock.now < 1 + RECONNECTED_POLL + 30 + RECONNECTED_MOST + 5


def test_a_silent_node_is_asked_again_ever_more_rarely_and_counts_once() -> None:
    """Its question was fetched and never arrived: to Flower it is delivered."""
    one = Round(
        {2: after(1.0), 3: after(None, None, 9.0)}, Timeouts(500.0, 60.0, again=5.0, silent=10.0)
    )
    assert one.ask() == {"a": True, "b": True}
    tried = [when for when, node in one.grid.asked if node == 3]
    assert tried == pytest.approx([0, 10, 30], abs=3 * POLL)
    assert one.clock.now == pytest.approx(39.0, abs=5 * POLL)


def test_a_slow_node_that_answers_every_question_counts_once_and_is_never_late() -> None:
    one = Round({2: after(1.0), 3: after(25.0)}, Timeouts(500.0, 60.0, again=5.0, silent=10.0))
    assert one.ask() == {"a": True, "b": True}
    one.clock.now = 60.0  # the answer to the second question came meanwhile
    assert one.ask(2) == {"a": True, "b": True}
    told = [(what, number) for what, number, site in one.events if site == "b"]
    assert told == [
        ("asked", 1),
        ("asked", 1),
        ("answered", 1),
        ("asked", 2),  # once: it is known how long this site takes
        ("answered", 2),
    ]


def test_who_is_known_to_be_slow_is_not_asked_twice_and_another_is_as_soon_as_ever() -> None:
    """By what a site itself took: no site can delay that another is asked again."""
    one = Round(
        {2: after(1.0, None, 1.0), 3: after(25.0)}, Timeouts(500.0, 60.0, again=5.0, silent=10.0)
    )
    for number in (1, 2, 3):
        began = one.clock.now
        assert one.ask(number) == {"a": True, "b": True}
        asked = [(round(when - began), node) for when, node in one.grid.asked if when >= began]
        # Site a does not get its first question of round 2; site b is asked twice in round 1 alone.
        again = {1: [(10, 3)], 2: [(10, 2)], 3: []}[number]
        assert asked == [(0, 2), (0, 3), *again]
        one.clock.now += 100.0


def test_after_an_answer_that_came_late_a_lost_question_is_asked_again_in_time() -> None:
    """A broken connection, not the site, took so long: half the round is left, and it heals."""
    one = Round({2: after(1.0), 3: after(450.0)}, Timeouts(500.0, 60.0, again=5.0, silent=10.0))
    assert one.ask(1) == {"a": True, "b": True}
    for number, again in ((2, 250), (3, 10)):
        one.clock.now = began = 1000.0 * number
        one.grid.answers = {2: after(1.0), 3: lost_once(one)}
        assert one.ask(number) == {"a": True, "b": True}
        asked = [round(when - began) for when, node in one.grid.asked if when >= began and node > 2]
        assert asked == [0, again]


def test_how_long_a_site_prepared_says_nothing_of_its_rounds() -> None:
    one = Round(
        {2: after(1.0), 3: after(40.0, 40.0, 40.0, None, 5.0)},
        Timeouts(500.0, 60.0, again=5.0, silent=10.0),
    )
    assert one.ask(0, step=Step.PREPARE) == {"a": True, "b": True}  # asked at 0, 10 and 30
    one.clock.now = 100.0
    assert one.ask(1) == {"a": True, "b": True}
    assert [round(when) for when, node in one.grid.asked if node == 3] == [0, 10, 30, 100, 110]


def test_a_silent_node_that_is_gone_is_not_asked_until_it_is_back() -> None:
    one = Round(
        {2: after(1.0), 3: after(None, 1.0)},
        Timeouts(500.0, 60.0, again=5.0, silent=10.0),
        there=lambda now: SITES if not 5 <= now < 80 else {2: "a"},
    )
    assert one.ask() == {"a": True, "b": True}
    assert [when for when, node in one.grid.asked if node == 3][1] == pytest.approx(80.0, abs=0.3)


def test_a_node_whose_message_was_not_taken_is_asked_again() -> None:
    one = Round(
        {2: after(1.0), 3: after(1.0)},
        Timeouts(100.0, 60.0, again=5.0),
        refuses=lambda now: {3} if now < 8 else set(),
    )
    assert one.ask() == {"a": True, "b": True}
    tried = [when for when, node in one.grid.asked if node == 3]
    assert tried == pytest.approx([0, 5, 10], abs=3 * POLL)


def test_a_late_answer_is_told_and_dropped() -> None:
    one = Round({2: after(1.0), 3: after(6.0, 2.0)}, Timeouts(5.0))
    assert one.ask(1, enough=1) == {"a": True}
    assert one.ask(2, enough=1) == {"a": True, "b": True}
    assert [event for event in one.events if event[2] == "b"] == [
        ("asked", 1, "b"),
        ("asked", 2, "b"),
        ("late", 1, "b"),
        ("answered", 2, "b"),
    ]


def test_an_answer_that_nobody_asked_for_is_dropped() -> None:
    """A node that answers one question twice must not end the run."""
    one = Round({2: after(1.0), 3: after(1.0)}, Timeouts(10.0))
    push = one.grid.push_messages

    def push_and_double(messages: object) -> object:
        asked = list(messages)  # type: ignore[call-overload]
        names = push(asked)
        one.grid.extra = [reply_to(asked[0], 2), reply_to(asked[0], 2), reply_to(asked[1], 3)]
        return names

    one.grid.push_messages = push_and_double  # type: ignore[method-assign, assignment]
    assert one.ask() == {"a": True, "b": True}


def connected(one: Round, enough: int) -> tuple[set[str], float]:
    nodes = one.asker.connected(len(SITES), enough, 0.0)
    return set(nodes.values()), one.clock.now


def test_a_round_begins_once_all_are_there() -> None:
    arrivals = {2: 0.0, 3: 4.0, 4: 9.0}
    there = lambda now: {n: SITES[n] for n, at in arrivals.items() if at <= now}  # noqa: E731
    assert connected(Round({}, Timeouts(100.0), there), 2) == (
        {"a", "b", "c"},
        pytest.approx(9.0, abs=2 * POLL),
    )
    assert connected(Round({}, Timeouts(100.0, absent=6.0), there), 2) == (
        {"a", "b"},
        pytest.approx(6.0, abs=2 * POLL),
    )
    assert connected(Round({}, Timeouts(100.0, absent=6.0), there), 3)[0] == {"a", "b", "c"}


def test_nobody_is_waited_for_longer_than_a_round() -> None:
    one = Round({}, Timeouts(12.34, absent=5.0), there=lambda now: {})
    assert connected(one, 1) == (set(), pytest.approx(12.34, abs=1e-9))


TIMES = st.none() | st.tuples(st.floats(0, 60), st.booleans())


@settings(max_examples=tries(200), deadline=None)
@given(
    timetable=st.lists(st.lists(TIMES, min_size=1, max_size=4), min_size=1, max_size=3),
    away=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=3, max_size=3),
    patience=st.builds(
        Timeouts,
        st.floats(0.01, 40),
        st.none() | st.floats(0, 50),
        st.none() | st.floats(0, 10),
        st.none() | st.floats(0.5, 10),
    ),
    reconnects=st.lists(st.floats(0, 50), min_size=3, max_size=3),
    enough=st.integers(1, 3),
)
def test_no_timetable_makes_a_round_longer_than_its_bound(
    timetable: list[list[tuple[float, bool] | None]],
    away: list[tuple[float, float]],
    patience: Timeouts,
    reconnects: list[float],
    enough: int,
) -> None:
    nodes = list(SITES)[: len(timetable)]
    answers = {
        node: (lambda count, times=times: times[min(count, len(times) - 1)])
        for node, times in zip(nodes, timetable, strict=True)
    }

    def there(now: float) -> Nodes:
        return {
            node: SITES[node]
            for node, (gone, back) in zip(nodes, away, strict=False)
            if not gone <= now < back
        }

    def since(now: float) -> Mapping[int, str]:
        return {node: str(now >= at) for node, at in zip(nodes, reconnects, strict=False)}

    one = Round(answers, patience, there, since)
    found = one.asker.connected(len(nodes), enough, 0.0)
    assert one.clock.now <= patience.round + 1e-9
    came = list(one.asker.ask(REQUEST, found, enough, 0.0))
    assert one.clock.now <= patience.round + 1e-9
    sites = [site for site, _ in came]
    assert len(set(sites)) == len(sites) <= len(found)
    answered = [site for what, _, site in one.events if what == "answered"]
    assert sorted(answered) == sorted(
        site for site, message in came if message.has_content() or patience.again is None
    )
    # Whoever answers the first question in time, and neither goes nor comes, is heard.
    for node, times in zip(nodes, timetable, strict=True):
        first, place = times[0], nodes.index(node)
        steady = node in found and reconnects[place] > 45
        begun = max((when for when, asked in one.grid.asked[:1]), default=math.inf)
        if steady and first and first[1] and begun + first[0] < one.clock.now - 2 * POLL:
            assert SITES[node] in sites
