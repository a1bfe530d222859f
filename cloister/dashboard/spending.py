"""Draws the charts of a ledger: ε and its cap, ε over the rounds, and the bytes released.

All ε here are those spent so far: indications, at half of the budget's δ, at which the budget's
rule compares them with the cap.
"""

from __future__ import annotations

import math

from markupsafe import Markup

from cloister.dashboard import svg
from cloister.dashboard.formatting import size_words
from cloister.dashboard.ledgers import LedgerFacts
from cloister.evidence.spending_series import (
    COLOURS,
    HEADROOM,
    SpendingSeries,
    cap_words,
    caps,
    series_of,
)
from cloister.ledger.stated import shown

# Most releases whose bars are shown.
BARS = 40


def series(facts: LedgerFacts) -> SpendingSeries:
    """Returns a ledger's series of ε, for all of its pictures."""
    return series_of(facts.name, facts.rounds, facts.ahead, facts.verdict.budget_epsilon)


def gauge(facts: LedgerFacts) -> Markup:
    """Draws ε spent, and what the budget still covers, on one bar that ends at the cap."""
    cap, spent = facts.verdict.budget_epsilon, facts.verdict.used.epsilon
    if not (math.isfinite(cap) and math.isfinite(spent)):
        return Markup("")
    coming = series(facts).ahead
    then = max(spent, coming[-1][1]) if coming else spent
    scale = svg.Scale(0, max(cap, then) * 1.02, 8, svg.WIDTH - 8)

    def bar(start: float, end: float, _class: str) -> Markup:
        width = round(scale(end) - scale(start), 2)
        return svg.tag("rect", x=scale(start), y=22, width=width, height=20, _class=_class)

    marks = [
        bar(0, cap, "room"),
        svg.with_tooltip(bar(spent, then, "ahead"), f"the forecast: ε = {shown(then)}"),
        svg.with_tooltip(bar(0, spent, "spent"), f"spent: ε = {shown(spent)}"),
        svg.path([(scale(cap), 14), (scale(cap), 50)], "cap"),
        svg.text(scale(cap), 10, cap_words(cap), "label cap", "end"),
    ]
    marks += [svg.text(scale(at), 60, f"{at:g}", "tick", "middle") for at in svg.ticks(0, cap)]
    says = f"Spent so far, an indication: ε = {shown(spent, 2)} of {shown(cap, 2)}"
    says += f"; with every round that still fits it would be {shown(then, 2)}." if coming else "."
    says += f" Both at δ = {facts.verdict.used.delta:g}."
    return svg.picture(marks, says, "plot gauge", 66)


def curve(facts: LedgerFacts) -> Markup:
    """Draws ε spent after each charged round, by both accountants, with the cap.

    Colours tell studies apart.
    """
    spent = series(facts)
    if not spent.pld:
        return Markup("")
    highest = spent.highest(rdp=True)
    drawn, far = caps([spent], highest)
    high = max([highest, *drawn]) * HEADROOM
    x, y = svg.across(0, spent.last), svg.upward(high)
    labels = [f"{value:g}" for value in svg.ticks(0, high)]
    marks = [
        svg.axes(
            x,
            y,
            svg.ticks(0, spent.last, 6, whole=True),
            labels,
            "charges (rounds, private evaluations, votes)",
        )
    ]
    for cap in drawn:
        marks.append(svg.path([(x(0), y(cap)), (x(spent.last), y(cap))], "cap"))
        marks.append(svg.text(x(0) + 4, y(cap) - 5, cap_words(cap), "label cap"))
    marks.append(svg.text(x(0) + 4, y(high) + 10, far, "label cap"))
    stairs = [(x(0), y(0)), *((x(n), y(value)) for n, value in spent.rdp)]
    marks.append(svg.path(stairs, "line rdp", steps=True))
    if spent.ahead:
        marks.append(svg.path([(x(n), y(value)) for n, value in spent.ahead], "line ahead"))
    marks += _steps(facts, spent, x, y)
    says = f"ε spent after each of {spent.charged} charged rounds, an indication at δ = "
    says += f"{facts.verdict.used.delta:g}: {shown(spent.pld[-1][1], 2)} by PLD at the end"
    is_capped = math.isfinite(spent.cap)
    says += f"; the cap is {shown(spent.cap, 2)}." if is_capped else "; there is no cap."
    return svg.picture(marks, says)


def _steps(facts: LedgerFacts, spent: SpendingSeries, x: svg.Scale, y: svg.Scale) -> list[Markup]:
    """Draws the steps of ε by PLD, each in its study's colour."""
    marks, before, size = [], (x(0), y(0)), 2.6 if len(spent.pld) <= 12 else 1.7
    for number, value in spent.pld:
        charged = facts.rounds[number - 1]
        style = f"s{facts.studies.index(charged.study) % len(COLOURS)}"
        place = (x(number), y(value))
        marks.append(svg.path([before, place], f"line {style}", steps=True))
        dot = svg.tag("circle", cx=place[0], cy=place[1], r=size, _class=f"dot {style}")
        said = f"round {charged.label} of study {charged.study[:8]}: ε = {shown(value)}"
        marks.append(svg.with_tooltip(dot, said))
        before = place
    return marks


def releases_chart(facts: LedgerFacts) -> Markup:
    """Draws the bytes of each of the last releases as a bar."""
    left = [
        (number, one.label, one.release.bytes)
        for number, one in enumerate(facts.rounds, 1)
        if one.release is not None
    ]
    if not left:
        return Markup("")
    total, left = sum(size for *_, size in left), left[-BARS:]
    first, last = left[0][0], left[-1][0]
    high = max(size for *_, size in left) * 1.12 or 1.0
    x, y = svg.across(first - 0.5, max(last, first + 7) + 0.5), svg.upward(high)
    labels = [size_words(value) if value else "0" for value in svg.ticks(0, high)]
    marks = [
        svg.axes(
            x,
            y,
            svg.ticks(first, last, 7, whole=True),
            labels,
            "charges (rounds, private evaluations, votes)",
        )
    ]
    width = min(26.0, (x(first + 1) - x(first)) * 0.66)
    for number, study_round, size in left:
        bar = svg.tag(
            "rect",
            x=round(x(number) - width / 2, 2),
            y=y(size),
            width=round(width, 2),
            height=round(y(0) - y(size), 2),
            rx=2,
            _class="bytes_up",
        )
        marks.append(svg.with_tooltip(bar, f"round {study_round}: {size:,} bytes"))
    return svg.picture(marks, f"Bytes of each release; {size_words(total)} left in all.")
