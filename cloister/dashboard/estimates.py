"""Draws the estimates of private evaluations with their intervals, by round."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cloister.dashboard import svg
from cloister.dashboard.charts import MOST_LINES, dot
from cloister.privacy.estimated_scores import EvaluatedRound, shown_estimate
from cloister.privacy.noised_ratio import Estimate

# Half the width of an interval's ends, and the distance between scores of one round.
CAP, APART = 3.5, 5.0
# Scores that are no shares from 0 to 1; the table has them.
NO_SHARES = frozenset({"loss", "perplexity"})

Points = dict[str, list[tuple[int, Estimate]]]


def shares_of(evaluations: Sequence[EvaluatedRound]) -> Points:
    """Returns the scores from 0 to 1 that a picture has, by metric: (round, estimate)."""
    found: Points = {}
    for one in evaluations:
        for metric, estimate in one.scores.items():
            if metric not in NO_SHARES:
                found.setdefault(metric, []).append((one.round, estimate))
    return dict(list(found.items())[:MOST_LINES])


def interval_words(ends: tuple[float, float] | None) -> str:
    """Formats an interval; empty where there is none."""
    return "" if ends is None else " to ".join(map(shown_estimate, ends))


def estimates_chart(evaluations: Sequence[EvaluatedRound], num_rounds: int) -> Markup:
    """Draws each score with its interval; where the noise hides a score, its interval alone."""
    shares = shares_of(evaluations)
    if not shares:
        return Markup("")
    last = max(num_rounds, evaluations[-1].round)
    x, y = svg.across(0, last), svg.upward(1.0)
    labels = [f"{value:g}" for value in svg.ticks(0, 1)]
    marks = [svg.axes(x, y, svg.ticks(0, last, 6, whole=True), labels, "round")]
    for index, (metric, points) in enumerate(shares.items()):
        aside = APART * (index - (len(shares) - 1) / 2)
        for number, found in points:
            at, (low, high) = x(number) + aside, found.widest
            parts = [svg.path(_bar(at, y(low), y(high)), f"interval s{index}")]
            if found.value is not None:
                parts.append(dot((at, y(found.value)), index))
            said = f"{metric}, round {number}: {shown_estimate(found.value)}, 95 % for "
            said += f"{found.covers}: {interval_words(found.widest)}"
            marks.append(svg.with_tooltip(Markup("").join(parts), said))
    return svg.picture(marks, f"Private evaluations by round: {_words(shares)}.")


def _bar(at: float, low: float, high: float) -> list[tuple[float, float]]:
    """Returns the corners of an interval with its two ends."""
    left, right = at - CAP, at + CAP
    lower, upper = [(left, low), (right, low), (at, low)], [(at, high), (left, high), (right, high)]
    return [*lower, *upper]


def _words(shares: Points) -> str:
    return "; ".join(
        f"{metric.replace('_', ' ')} {shown_estimate(found.value)}, "
        f"{interval_words(found.widest)} for {found.covers}, after round {number}"
        for metric, points in shares.items()
        for number, found in points[-1:]
    )
