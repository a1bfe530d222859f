"""The page of a report by group."""

from __future__ import annotations

from html import escape

from cloister.report_page import heading, page, paragraph, table
from cloister.trust.attack.page import told
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
    """The page as HTML.

    Args:
        title: Of the page.
        about: The model, the records, the groups and the seed, in a sentence.
        metric: What is measured.
        found: By group; None: no groups were given.
        against: The other model's name; None: none.
        language: What a chat model does with sentences, questions and prompts; None: not asked.
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
            f"Of all records {told(found.whole)}. The groups differ by {found.gap:.3f} at most; "
            f"groups of these sizes drawn at random differ as much in {found.chance:.1%} of draws."
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
            told(one.score),
            *([told(one.calibration)] if one.calibration else []),
            *([told(one.mean_score)] if one.mean_score else []),
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
                told(rates.selected),
                told(rates.true_positive),
                told(rates.false_positive),
            )
            for gap in found.labels
            for one in found.groups
            for rates in [one.labels[gap.label]]
        ]
        heads = ["label", "group", "gets it", "of those that have it", "of those that do not"]
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
                "A difference is the largest rate of a group less the smallest. Where groups have "
                "a label in different shares, equal selection is not what is right.",
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
            gaps, f"{metric.name} of {against} less that of this model, 95 %, paired", zero=True
        ),
        paragraph(
            "Against a run without privacy this is what privacy cost each group: small groups "
            "often lose most (Bagdasaryan et al. 2019).",
            "soft",
        ),
    ]
