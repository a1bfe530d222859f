"""The pictures of a ledger: ε against its cap, ε over the rounds, and the bytes that left.

All ε here are of what was spent so far: indications, at half of the budget's δ, at which its rule
compares them with the cap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from cloister.dashboard import svg
from cloister.dashboard.formatting import epsilon_words, size_words
from cloister.dashboard.ledgers import LedgerFacts
from cloister.ledger.replay import ChargedRound
from cloister.ledger.stated import shown

# Studies that have a colour of their own; later ones begin again.
COLOURS = 4
# Releases whose bars are shown.
BARS = 40


def ahead_of(facts: LedgerFacts) -> list[tuple[int, float]]:
    """(rounds charged in all, ε by PLD) from now to the last round that the budget affords."""
    if facts.ahead is None or not facts.ahead.rounds:
        return []
    charged = len(facts.rounds)
    return [(charged + more, value) for more, value in facts.ahead.curve if math.isfinite(value)]


def gauge(facts: LedgerFacts) -> Markup:
    """What is spent, and what the budget still affords, on one bar that ends at the cap."""
    cap, spent = facts.verdict.budget_epsilon, facts.verdict.used.epsilon
    if not (math.isfinite(cap) and math.isfinite(spent)):
        return Markup("")
    coming = ahead_of(facts)
    then = max(spent, coming[-1][1]) if coming else spent
    scale = svg.Scale(0, max(cap, then) * 1.02, 8, svg.WIDTH - 8)

    def bar(start: float, end: float, _class: str) -> Markup:
        width = round(scale(end) - scale(start), 2)
        return svg.tag("rect", x=scale(start), y=22, width=width, height=20, _class=_class)

    marks = [
        bar(0, cap, "room"),
        svg.told(bar(spent, then, "ahead"), f"the forecast: ε = {shown(then)}"),
        svg.told(bar(0, spent, "spent"), f"spent: ε = {shown(spent)}"),
        svg.path([(scale(cap), 14), (scale(cap), 50)], "cap"),
        svg.text(scale(cap), 10, f"cap {epsilon_words(cap)}", "label cap", "end"),
    ]
    marks += [svg.text(scale(at), 60, f"{at:g}", "tick", "middle") for at in svg.ticks(0, cap)]
    says = f"Spent so far, an indication: ε = {shown(spent, 2)} of {shown(cap, 2)}"
    says += f"; with every round that still fits it would be {then:.2f}." if coming else "."
    says += f" Both at δ = {facts.verdict.used.delta:g}."
    return svg.picture(marks, says, "plot gauge", 66)


def curve(facts: LedgerFacts) -> Markup:
    """ε spent after each charged round by both accountants, coloured by study, with the cap."""
    numbered = list(enumerate(facts.rounds, 1))
    known = [(n, one) for n, one in numbered if _is_finite(one.epsilon_pld)]
    second = [(n, one.epsilon_rdp) for n, one in numbered if _is_finite(one.epsilon_rdp)]
    if not known:
        return Markup("")
    coming, cap = ahead_of(facts), facts.verdict.budget_epsilon
    reached = [one.epsilon_pld or 0.0 for _, one in known]
    high = max([*reached, *(value or 0.0 for _, value in [*coming, *second])])
    is_capped = math.isfinite(cap) and cap < 4 * high  # a far one would flatten the curve
    high = max(high, cap if is_capped else 0) * 1.12
    last = coming[-1][0] if coming else len(facts.rounds)
    x, y = svg.across(0, last), svg.upward(high)
    labels = [f"{value:g}" for value in svg.ticks(0, high)]
    marks = [svg.axes(x, y, svg.ticks(0, last, 6, whole=True), labels, "rounds charged")]
    if is_capped:
        marks.append(svg.path([(x(0), y(cap)), (x(last), y(cap))], "cap"))
        marks.append(svg.text(x(0) + 4, y(cap) - 5, f"cap {epsilon_words(cap)}", "label cap"))
    stairs = [(x(0), y(0)), *((x(n), y(value or 0.0)) for n, value in second)]
    marks.append(svg.path(stairs, "line rdp", steps=True))
    if coming:
        marks.append(svg.path([(x(n), y(value)) for n, value in coming], "line ahead"))
    marks += _steps(facts, known, x, y)
    says = f"ε spent after each of {len(numbered)} charged rounds, an indication at δ = "
    says += f"{facts.verdict.used.delta:g}: {reached[-1]:.2f} by PLD at the end"
    says += f"; the cap is {cap:.2f}." if math.isfinite(cap) else "; there is no cap."
    return svg.picture(marks, says)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _steps(
    facts: LedgerFacts, known: Sequence[tuple[int, ChargedRound]], x: svg.Scale, y: svg.Scale
) -> list[Markup]:
    """The staircase by PLD, each step in its study's colour."""
    marks, before, size = [], (x(0), y(0)), 2.6 if len(known) <= 12 else 1.7
    for number, charged in known:
        value = charged.epsilon_pld or 0.0
        style, place = f"s{facts.studies.index(charged.study) % COLOURS}", (x(number), y(value))
        marks.append(svg.path([before, place], f"line {style}", steps=True))
        dot = svg.tag("circle", cx=place[0], cy=place[1], r=size, _class=f"dot {style}")
        said = f"round {charged.round} of study {charged.study[:8]}: ε = {shown(value)}"
        marks.append(svg.told(dot, said))
        before = place
    return marks


def releases_chart(facts: LedgerFacts) -> Markup:
    """A bar for each of the last releases: its bytes."""
    left = [
        (number, one.round, one.release.bytes)
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
    marks = [svg.axes(x, y, svg.ticks(first, last, 7, whole=True), labels, "rounds charged")]
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
        marks.append(svg.told(bar, f"round {study_round}: {size:,} bytes"))
    return svg.picture(marks, f"Bytes of each release; {size_words(total)} left in all.")
