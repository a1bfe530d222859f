"""A search as one page: what was chosen, what it cost, the scores over each field, all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cloister.report_page import AGAINST, FOR, heading, page, paragraph, table
from cloister.simulation.tuning.search import Search
from cloister.simulation.tuning.search_space import Searched
from cloister.simulation.tuning.tuned_recipe import data_words, score_words
from cloister.simulation.tuning.tuning_file import TriedSetting

# Width and height of a plot, and the space for its axes.
WIDE, HIGH, LEFT, BELOW = 560, 190, 60, 34


def tuning_page(
    planned: Search, trials: Sequence[TriedSetting], best: TriedSetting, metric: str
) -> str:
    """Returns the page in HTML.

    Args:
        planned: The search.
        trials: All trials.
        best: The winner.
        metric: The name of the score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    winner = ", ".join(f"{field} = {text}" for field, text in best.setting.items())
    body = [
        paragraph(f"Chosen: {winner}."),
        paragraph(f"By {score_words(planned, best, len(scored), metric)}."),
        paragraph(data_words(planned), "loud" if planned.together is not None else "soft"),
        paragraph(
            "The winner's score flatters it, because it is the best of several: the test score "
            "below was not used to choose."
        ),
    ]
    for one in planned.searched:
        body += [heading(one.field), _plot(one, scored, best, metric)]
    body += [heading("Trials"), _table(planned, trials, metric)]
    return page(f"Search of settings: {planned.base.study.name}", body)


def rows(planned: Search, trials: Sequence[TriedSetting]) -> list[list[str]]:
    """Returns the cells of the table of trials."""
    return [
        [
            str(trial.number),
            *(trial.setting[one.field] for one in planned.searched),
            trial.why if trial.score is None else _spread(trial),
            "–" if trial.test is None else f"{trial.test:.4f}",
        ]
        for trial in trials
    ]


def columns(planned: Search, metric: str) -> list[str]:
    """Returns the names of the table's columns."""
    fields = [one.field for one in planned.searched]
    return ["trial", *fields, f"validation {metric}", f"test {metric}"]


def _table(planned: Search, trials: Sequence[TriedSetting], metric: str) -> str:
    return table(columns(planned, metric), rows(planned, trials), numbers=2)


def _spread(trial: TriedSetting) -> str:
    """Returns the mean score; with several seeds also the lowest and the highest."""
    mean = f"{trial.score:.4f}"
    if len(trial.scores) < 2:
        return mean
    return f"{mean} ({min(trial.scores):.4f} to {max(trial.scores):.4f})"


def _plot(one: Searched, scored: Sequence[TriedSetting], best: TriedSetting, metric: str) -> str:
    """Draws each trial's score over its value of one field; the winner is ringed."""
    scores = [trial.score or 0.0 for trial in scored]
    low, high = min(scores), max(scores)
    wide = (high - low) or 1.0
    parts = [
        f'<line class="line" x1="{LEFT}" x2="{LEFT + WIDE}" y1="{HIGH}" y2="{HIGH}"/>',
        *(
            f'<text class="soft" x="{LEFT - 6}" y="{y}" text-anchor="end">{value:.3f}</text>'
            for value, y in ((high, 14), (low, HIGH - 6))
        ),
    ]
    for place, name in _marks(one):
        x = LEFT + 14 + (WIDE - 28) * place
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{HIGH + 18}" text-anchor="middle">'
            f"{escape(name[:20])}</text>"
        )
    for trial in scored:
        x = LEFT + 14 + (WIDE - 28) * _place(one, trial.setting[one.field])
        y = HIGH - 10 - (HIGH - 20) * ((trial.score or 0.0) - low) / wide
        title = escape(f"trial {trial.number}: {trial.setting[one.field]}, {trial.score:.4f}")
        if trial.number == best.number:
            ring = f'r="8" fill="none" stroke="rgb({AGAINST})" stroke-width="2"'
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {ring}/>')
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="rgb({FOR})" fill-opacity="0.7">'
            f"<title>{title}</title></circle>"
        )
    caption = f"{metric} on the validation file over {one.field}; the winner is ringed."
    width, height = LEFT + WIDE + 10, HIGH + BELOW
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(caption)}">{"".join(parts)}</svg>'
        f'<p class="soft">{escape(caption)}</p>'
    )


def _marks(one: Searched) -> list[tuple[float, str]]:
    """Returns the marks of the axis: places from 0 to 1, and what is written there."""
    if one.choices:
        return [(_place(one, text), text) for text in one.choices]
    return [(0.0, f"{one.low:g}"), (1.0, f"{one.high:g}{' (log)' * one.is_log}")]


def _place(one: Searched, text: str) -> float:
    """Returns where on the axis a value is, from 0 to 1."""
    number = one.number(text)
    if number is None:
        return one.choices.index(text) / (len(one.choices) - 1)
    if one.is_log:
        return math.log(number / one.low) / math.log(one.high / one.low)
    return (number - one.low) / (one.high - one.low)
