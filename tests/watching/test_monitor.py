"""The monitor: drift, surges and debouncing as pure functions of rows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.watching.config import DriftConfig, SurgesConfig, TopicConfig
from cloister.watching.debounce import Calm, Debounced, debounced
from cloister.watching.monitor import MonitorState, WatchPlan, observe, passed
from cloister.watching.parsing import parse_line, read_time
from cloister.watching.row import Features, StreamRow
from cloister.watching.surges import Counts, look
from cloister.watching.topics import make_topics, topics_of
from tests.support.examples import tries
from tests.support.watched import HOUR, START, SURGES, empty, plan, row


def labels(rng: np.random.Generator, count: int, negative: float) -> list[StreamRow]:
    names = rng.choice(["negative", "positive"], size=count, p=[negative, 1 - negative])
    return [row(str(name), START + 60.0 * n) for n, name in enumerate(names)]


def timed(rows: list[StreamRow]) -> list[tuple[float, StreamRow]]:
    return [(one.at or 0.0, one) for one in rows]


def hourly(counts: list[int], company: str = "Acme") -> list[tuple[float, StreamRow]]:
    """Negative rows, so many in each hour, and a neutral one that ends the last hour."""
    rows = [
        row("negative", START + HOUR * (hour + n / (count + 1)), company)
        for hour, count in enumerate(counts)
        for n in range(count)
    ]
    return timed([*rows, row("neutral", START + HOUR * len(counts), company)])


def test_a_window_of_other_labels_drifts_and_one_of_the_same_does_not() -> None:
    rng = np.random.default_rng(0)
    watch = plan(labels(rng, 1000, 0.3), topics={})
    state, alerts = observe(watch, empty(watch), timed(labels(rng, 200, 0.3)))
    assert (state.closed, alerts) == (2, ())
    state, alerts = observe(watch, state, timed(labels(rng, 100, 0.9)))
    assert [(one.key, one.event) for one in alerts] == [("label", "begins")]
    state, alerts = observe(watch, state, timed(labels(rng, 100, 0.3)))
    assert [(one.key, one.event) for one in alerts] == [("label", "ends")]


def test_a_large_psi_that_chance_explains_is_no_drift() -> None:
    """60 rows against 60: six bins of ten each vary by PSI 0.2 and more without drift."""
    rng = np.random.default_rng(2)

    def drawn(count: int) -> list[StreamRow]:
        return [row(f"{rng.integers(12)}") for _ in range(count)]

    watch = plan(drawn(60), drift=DriftConfig(window_rows=60, psi_alert=0.1), topics={})
    state, alerts = observe(watch, empty(watch), timed(drawn(60 * 30)))
    high = [f for w in state.windows for f in w.figures if f.feature == "label" and f.psi > 0.1]
    assert len(high) > 10
    assert alerts == ()


def test_false_findings_over_the_horizon_are_rarer_than_declared() -> None:
    """40 horizons of 20 windows without drift, at 20 %: at most 8 on average; 15 of 40 has a
    probability under 1 %. PSI is left out by a threshold that everything passes."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        config = DriftConfig(
            window_rows=50, false_alarm=0.2, horizon=20, psi_alert=0.01, psi_calm=0.001
        )
        watch = plan(labels(rng, 400, 0.4), drift=config, topics={})
        _, alerts = observe(watch, empty(watch), timed(labels(rng, 50 * 20, 0.4)))
        found += bool(alerts)
    assert found < 15


def test_embeddings_that_move_are_found_on_projections() -> None:
    rng = np.random.default_rng(4)

    def vectors(count: int, shift: float) -> list[StreamRow]:
        values = rng.normal(shift, size=(count, 6))
        return [replace(row("neutral"), embedding=tuple(map(float, one))) for one in values]

    watch = plan(vectors(400, 0.0), topics={})
    state, alerts = observe(watch, empty(watch), timed(vectors(100, 0.0)))
    assert alerts == ()
    state, alerts = observe(watch, state, timed(vectors(100, 2.0)))
    assert alerts
    assert all(one.key.startswith("embedding ") for one in alerts)
    tests = {figure.test for figure in state.windows[-1].figures if "embedding" in figure.feature}
    assert tests == {"Kolmogorov-Smirnov"}


def test_marks_of_a_row_are_tested_one_by_one() -> None:
    """Two types of entities that always come together are two tests, and the p-value is doubled
    (with the third, of other types, of which there are none to test)."""

    def tagged(count: int, has: int) -> list[StreamRow]:
        marks = [frozenset({"person", "place"}) if n < has else frozenset() for n in range(count)]
        return [StreamRow(Features({}, one, {}), one, at=START) for one in marks]  # type: ignore[arg-type]

    watch = plan(tagged(200, 100), topics={})
    state, _ = observe(watch, empty(watch), timed(tagged(100, 70)))
    (figure,) = state.windows[0].figures
    from scipy.stats import chi2_contingency

    one = chi2_contingency([[100, 100], [70, 30]], correction=False).pvalue
    assert figure.p == pytest.approx(2 * one)
    assert figure.where in ("person", "place")


def test_a_surge_is_alerted_once_and_its_end_is_told() -> None:
    watch = plan()
    usual = [1, 0, 2, 1] * 15
    _, alerts = observe(watch, empty(watch), hourly([*usual, 12, 14, 11, 1, 0, 1, 1, 0]))
    assert [(one.key, one.event) for one in alerts] == [
        ("company=Acme", "begins"),
        ("company=Acme", "ends"),
    ]
    begin, end = (START + HOUR * n for n in (61, 66))
    assert [one.at[11:13] for one in alerts] == [f"{int(t // HOUR % 24):02}" for t in (begin, end)]


def test_a_second_surge_is_measured_against_calm_times_and_not_against_the_first() -> None:
    watch = plan()
    usual = [1, 0, 2, 1] * 15
    twice = [*usual, 14, 14, 14, 14, *[1, 0, 2, 1] * 4, 8, 8]
    _, alerts = observe(watch, empty(watch), hourly(twice))
    assert [one.event for one in alerts] == ["begins", "ends", "begins"]


def test_a_level_that_lasts_becomes_usual() -> None:
    """It ends by itself when the raised steps are more than half of the past of 48 hours: 24 hours,
    a window and the guard after it began, and not when no calm hour is left in the past."""
    watch = plan()
    _, alerts = observe(watch, empty(watch), hourly([1, 0, 2, 1] * 15 + [12] * 80))
    assert [one.event for one in alerts] == ["begins", "ends"]
    hours = (read_time(alerts[1].at) - read_time(alerts[0].at)) / HOUR
    assert 24 <= hours <= 32


def test_too_little_past_raises_no_alert() -> None:
    watch = plan()
    _, alerts = observe(watch, empty(watch), hourly([0] * 8 + [30]))
    assert alerts == ()


def test_more_traffic_alone_is_no_surge_of_a_share() -> None:
    """Ten times the rows with the same share of negative ones."""

    def stream(hours: int, rows: int) -> list[tuple[float, StreamRow]]:
        return [
            (at, row("negative" if n % 5 == 0 else "neutral", at))
            for hour in range(hours)
            for n in range(rows if hour < 60 else rows * 10)
            for at in [START + HOUR * (hour + n / (rows * 10))]
        ]

    for per, expected in (("time", 1), ("rows", 0)):
        topic = TopicConfig(column="company", answers=("negative",), per=per)  # type: ignore[arg-type]
        watch = plan(topics={"company": topic})
        _, alerts = observe(watch, empty(watch), stream(64, 10))
        assert len(alerts) == expected, per


def test_a_share_surges_where_traffic_falls() -> None:
    """Half of the rows, all of them negative, where one in ten was: 12 where 1.2 are usual."""
    rows = [
        (at, row("negative" if hour >= 60 or n == 0 else "neutral", at))
        for hour in range(63)
        for n in range(10 if hour < 60 else 6)
        for at in [START + HOUR * (hour + n / 10)]
    ]
    topic = TopicConfig(column="company", answers=("negative",), per="rows")
    watch = plan(topics={"company": topic})
    _, alerts = observe(watch, empty(watch), rows)
    assert [(one.event, one.figures["count"]) for one in alerts] == [("begins", 12)]
    assert alerts[0].figures["expected"] == pytest.approx(1.2)


@settings(max_examples=tries(120), deadline=None)
@given(st.lists(st.integers(0, 9), min_size=52, max_size=70), st.integers(1, 4))
def test_windowed_sums_are_those_of_a_slow_twin(counts: list[int], window: int) -> None:
    """Count and expectation of the last look, from the list of counts alone."""
    config = SurgesConfig(
        step_seconds=HOUR,
        window_seconds=window * HOUR,
        baseline_seconds=24 * window * HOUR if window < 3 else 12 * window * HOUR,
        min_count=1_000_000,
    )
    watch = plan(surges=config)
    # The past begins with the first row, whatever it is.
    first = (START, row("neutral"))
    state, _ = observe(watch, empty(watch), [first, *hourly(counts)])
    figures = state.looks[-1].figures if state.looks else ()
    kept = config.baseline_steps
    past = counts[: len(counts) - 2 * window][-kept:]
    past = past[len(past) % window :]
    if len(past) < max(window, 0.25 * kept):
        assert figures == ()
        return
    assert figures[0].count == sum(counts[-window:])
    assert figures[0].expected == pytest.approx(sum(past) * window / len(past))


@settings(max_examples=tries(120), deadline=None)
@given(st.data())
def test_it_is_the_same_however_rows_are_parted_into_calls(data: st.DataObject) -> None:
    rng = np.random.default_rng(7)
    rows = hourly([1, 0, 2, 1] * 15 + [12, 9, 0, 1, 0, 0, 0])
    watch = plan(labels(rng, 200, 0.1), drift=DriftConfig(window_rows=50))
    whole = observe(watch, empty(watch), rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    state, alerts = empty(watch), ()
    for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        state, new = observe(watch, state, rows[first:last])
        alerts += new  # type: ignore[assignment]
    assert alerts == whole[1]
    assert same(state, whole[0])


def same(first: MonitorState, second: MonitorState) -> bool:
    arrays = ("rows", "hits", "surged", "open_rows", "open_hits")
    equal = all(
        np.array_equal(getattr(first.counts, name), getattr(second.counts, name)) for name in arrays
    )
    nothing = np.zeros(0)
    blank = dict.fromkeys(arrays, nothing)

    def rest(one: MonitorState) -> str:
        return repr(replace(one, counts=replace(one.counts, **blank)))  # type: ignore[arg-type]

    return equal and rest(first) == rest(second)


def test_silence_ends_a_surge_and_a_long_one_leaves_no_past() -> None:
    watch = plan()
    state, alerts = observe(watch, empty(watch), hourly([1, 0, 2, 1] * 15 + [12, 14]))
    assert [one.event for one in alerts] == ["begins"]
    state, alerts = passed(watch, state, START + HOUR * 70)
    assert [one.event for one in alerts] == ["ends"]
    state, alerts = passed(watch, state, START + HOUR * 24 * 3650)
    assert alerts == ()
    assert not state.counts.hits.any()


def test_late_rows_count_in_the_open_step() -> None:
    watch = plan()
    state, _ = observe(watch, empty(watch), [(START + HOUR, row("negative"))])
    state, _ = observe(watch, state, [(START, row("negative"))])
    assert state.counts.late == 1
    assert state.counts.open_hits.tolist() == [2]


def test_topics_by_terms_are_whole_words_in_any_case_and_chinese_anywhere() -> None:
    configs = {
        "acme": TopicConfig(terms=("Acme", "Acme Corp"), answers=("negative",)),
        "apple": TopicConfig(terms=("苹果",), answers=("negative",)),
        "c": TopicConfig(terms=("C++",), answers=("negative",)),
        "all": TopicConfig(answers=("negative",)),
    }
    topics = make_topics(configs)

    def found(text: str | None) -> list[str]:
        return [name for name, _ in topics_of(topics, row("negative", text=text))]

    assert found("ACME falls") == ["acme", "all"]
    assert found("acmes fall") == ["all"]
    assert found("今天苹果下跌") == ["apple", "all"]
    assert found("written in C++, mostly") == ["c", "all"]
    assert found(None) == ["all"]


def test_scores_are_counted_by_their_bounds() -> None:
    topics = make_topics({"bad": TopicConfig(at_most=2.0), "good": TopicConfig(at_least=4.0)})
    scored = replace(row("x"), score=1.5, answers=frozenset())
    assert topics_of(topics, scored) == [("bad", True), ("good", False)]


def test_an_alert_waits_for_its_gap_and_for_calm_looks() -> None:
    calm = Calm(gap_seconds=100, looks=2)
    state, events = Debounced(), []
    # Time, whether high, whether low.
    looks = [
        (0, True, False, "begins"),
        (10, False, False, None),  # between the thresholds nothing changes
        (20, False, True, None),
        (30, False, False, None),  # the calm is broken
        (40, False, True, None),
        (50, False, True, "ends"),
        (60, True, False, None),  # within the gap
        (99, True, False, None),
        (100, True, False, "begins"),
    ]
    for at, high, low, event in looks:
        state, found = debounced(state, calm, at, is_high=high, is_low=low)
        events.append(found)
        assert found == event, at


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans(), st.booleans()), max_size=60))
def test_alerts_alternate_and_begin_no_sooner_than_the_gap(
    looks: list[tuple[int, bool, bool]],
) -> None:
    state, now, told = Debounced(), 0.0, list[tuple[float, str]]()
    for wait, high, low in looks:
        now += wait
        state, event = debounced(state, Calm(60, 2), now, is_high=high, is_low=low and not high)
        if event:
            told.append((now, event))
    assert [event for _, event in told] == ["begins", "ends"] * (len(told) // 2) + ["begins"] * (
        len(told) % 2
    )
    begins = [at for at, event in told if event == "begins"]
    assert all(second - first >= 60 for first, second in pairwise(begins))


def test_a_look_needs_no_topic() -> None:
    counts = Counts(
        (),
        *(np.zeros((52, 0), dtype=np.int64),) * 2,
        np.zeros((52, 0), dtype=bool),
        *(np.zeros(0, dtype=np.int64),) * 2,
        step=60,
        closed=52,
    )
    assert look(counts, SURGES, {}).figures == ()


def test_more_topics_than_are_kept_are_counted_as_beyond() -> None:
    watch: WatchPlan = plan()
    rows = [(START, row("negative", company=f"c{n}")) for n in range(510)]
    state, _ = observe(watch, empty(watch), rows)
    assert (len(state.counts.topics), state.counts.beyond) == (500, 10)


def test_the_parser_s_row_is_what_the_topic_counts() -> None:
    from tests.support.watched import form

    line = b'{"label": "negative", "company": "Acme", "at": 5, "text": "x"}'
    (found,) = parse_line(line, form())
    watch = plan()
    assert topics_of(watch.topics, found) == [("company=Acme", True)]
