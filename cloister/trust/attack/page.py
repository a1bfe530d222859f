"""Writes the page of a robustness report: the change of the score under each disturbance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from cloister.report_page import heading, page, paragraph, table
from cloister.trust.attack.measured import INJECTION, AttackRow
from cloister.trust.charts import whiskers
from cloister.trust.intervals import Interval
from cloister.trust.outcomes import Metric


def attack_page(
    title: str,
    about: str,
    metric: Metric,
    whole: Interval | None,
    rows: Sequence[AttackRow],
    groups: Mapping[str, Mapping[str, Interval]],
) -> str:
    """Returns the page of a robustness report as HTML.

    Args:
        title: The page's title.
        about: The model, the records and the seed, in a sentence.
        metric: The measured score.
        whole: The score on all records.
        rows: The rows of disturbances and suites.
        groups: By suite, its score by group.
    """
    better = "less is better" if metric.is_error else "more is better"
    body = [paragraph(about)]
    if whole is not None:
        body.append(paragraph(f"Undisturbed: {metric.name} {figure(whole)} ({better})."))
    gaps = [(row.name, row.difference) for row in rows if row.difference is not None]
    body.append(heading("What each disturbance changes"))
    caption = f"{metric.name}, disturbed minus original, 95 % interval, paired over records"
    body.append(whiskers(gaps, caption, zero=True))
    columns = ("disturbance", "what it does", "records", "before", "after", "answers changed")
    cells = [
        (
            row.name,
            row.words,
            str(row.records),
            figure(row.clean),
            figure(row.disturbed),
            figure(row.flipped),
        )
        for row in rows
        if not row.why and row.name != INJECTION and not row.is_reversing
    ]
    body.append(table(columns, cells, 4))
    body.append(
        paragraph(
            "The scores before and after are for the records that the disturbance changes. Each "
            "interval has 95 % coverage by itself: of twenty intervals about one misses.",
            "soft",
        )
    )
    for row in rows:
        if row.is_reversing and not row.why:
            body.append(heading("Where the answer should change"))
            body.append(
                paragraph(
                    f"{row.name}: {row.words}. {figure(row.flipped)} of the answers on "
                    f"{row.records} records changed. An answer that stays is a warning, not a "
                    "proof: not every negation reverses a text's meaning."
                )
            )
        if row.name == INJECTION and not row.why:
            body.append(heading("Prompt injection"))
            body.append(
                paragraph(
                    f"{figure(row.disturbed)} of {row.records} replies contained the word that the "
                    f"injection asks for; without the injection {figure(row.clean)}."
                )
            )
    for name, each in groups.items():
        body.append(heading(f"{name}, by group"))
        body.append(whiskers(list(each.items()), metric.name, ends=(0.0, 1.0)))
    body += _examples(rows)
    left = [row for row in rows if row.why]
    if left:
        body.append(heading("Does not apply"))
        items = "".join(f"<li>{escape(row.name)}: {escape(row.why)}</li>" for row in left)
        body.append(f"<ul>{items}</ul>")
    return page(title, body)


def figure(one: Interval | None) -> str:
    """Returns a figure with its interval as text; a dash if it is not known."""
    return "–" if one is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _examples(rows: Sequence[AttackRow]) -> list[str]:
    found = [row for row in rows if row.example is not None]
    if not found:
        return []
    parts = [heading("An example of each, from the public texts")]
    for row in found:
        assert row.example is not None
        one = row.example
        parts.append(
            f'<div class="card"><h3>{escape(row.name)}</h3>'
            f"<p>{escape(one.before)}</p><p class=soft>{escape(one.said)}</p>"
            f"<p>{escape(one.after)}</p><p class=soft>{escape(one.says)}</p></div>"
        )
    return parts
