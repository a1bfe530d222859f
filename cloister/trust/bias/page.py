"""Writes the page of a report on groups of persons."""

from __future__ import annotations

from html import escape

from cloister.report_page import heading, page, paragraph, table
from cloister.trust.attack.page import figure
from cloister.trust.bias.language import LanguageFound
from cloister.trust.bias.language_page import language_parts
from cloister.trust.bias.measured import FEW, BiasFound
from cloister.trust.charts import whiskers
from cloister.trust.outcomes import Metric


def bias_page(
    title: str,
    about: str,
    metric: Metric,
    found: BiasFound | None,
    against: str | None,
    language: LanguageFound | None,
) -> str:
    """Returns the page of a report on groups as HTML.

    Args:
        title: The page's title.
        about: The model, the records, the groups and the seed, in a sentence.
        metric: The measured score.
        found: The figures by group; None: no groups were given.
        against: The other model's name; None: none.
        language: The figures of a chat model's tests; None: no tests were given.
    """
    body = [paragraph(about)]
    if found is not None:
        body += _groups(metric, found, against)
    if language is not None:
        body += language_parts(language)
    return page(title, body)


def _groups(metric: Metric, found: BiasFound, against: str | None) -> list[str]:
    better = "less is better" if metric.is_error else "more is better"
    scores = [(one.name, one.score) for one in found.groups if one.score is not None]
    body = [
        heading(f"{metric.name} by group"),
        whiskers(scores, f"{metric.name} ({better}), 95 % interval"),
        paragraph(
            f"All records: {figure(found.whole)}. The groups differ by {found.gap:.3f} at most; "
            f"random groups of these sizes differ as much in {found.chance:.1%} of draws."
        ),
    ]
    few = [one.name for one in found.groups if one.records < FEW]
    if few:
        names = ", ".join(few)
        body.append(paragraph(f"Fewer than {FEW} records, so little is known: {names}.", "loud"))
    rows = [
        (
            one.name,
            str(one.records),
            figure(one.score),
            *([figure(one.calibration)] if one.calibration else []),
            *([figure(one.mean_score)] if one.mean_score else []),
        )
        for one in found.groups
    ]
    columns = ["group", "records", metric.name]
    columns += ["calibration error"] if found.groups[0].calibration else []
    columns += ["mean score"] if found.groups[0].mean_score else []
    body.append(table(columns, rows, len(columns) - 1))
    if against is not None:
        body += _against(metric, found, against)
    if found.labels:
        body.append(heading("Who gets which label"))
        cells = [
            (
                gap.label,
                one.name,
                figure(rates.selected),
                figure(rates.true_positive),
                figure(rates.false_positive),
            )
            for gap in found.labels
            for one in found.groups
            for rates in [one.labels[gap.label]]
        ]
        heads = ["label", "group", "gets it", "among those with it", "among those without it"]
        body.append(table(heads, cells, 3))
        gaps = [
            (
                gap.label,
                f"{gap.selected:.3f}",
                "–" if gap.ratio is None else f"{gap.ratio:.3f}",
                f"{gap.odds:.3f}",
            )
            for gap in found.labels
        ]
        titles = ["label", "demographic parity difference", "ratio", "equalized odds difference"]
        body.append(table(titles, gaps, 3))
        body.append(
            paragraph(
                "A difference is the largest rate of a group minus the smallest. If groups have a "
                "label in different shares, equal selection rates are not correct.",
                "soft",
            )
        )
    return body


def _against(metric: Metric, found: BiasFound, against: str) -> list[str]:
    gaps = [(one.name, one.against) for one in found.groups if one.against is not None]
    if found.against is not None:
        gaps.append(("all records", found.against))
    return [
        f"<h2>Against {escape(against)}</h2>",
        whiskers(
            gaps, f"{metric.name} of {against} minus that of this model, 95 %, paired", zero=True
        ),
        paragraph(
            "In comparison with a run without privacy, this is the cost of privacy for each group: "
            "small groups often lose most (Bagdasaryan et al. 2019).",
            "soft",
        ),
    ]
