"""Writes the page of a report on held-out records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloister.report_page import heading, page, paragraph, table
from cloister.trust.charts import whiskers
from cloister.trust.held_out.adapter import SiteAdapter
from cloister.trust.held_out.scored import HeldOutScores
from cloister.trust.intervals import Interval

METHOD = (
    "Intervals are at 95 %: Wilson's for shares of units, otherwise the percentile bootstrap over "
    "units (2,000 draws). They say how far chance in the choice of held-out records may move a "
    "score, if the site's next records are like these. Choosing among many adapters by these "
    "scores makes the best one look better than it is."
)


def held_out_page(
    site: str,
    adapter: SiteAdapter,
    document: Mapping[str, Any],
    found: HeldOutScores,
    cautions: Sequence[str],
) -> str:
    """Returns the page as HTML.

    Args:
        site: The site's name.
        adapter: The adapter.
        document: The content of the JSON file.
        found: The scores.
        cautions: What a reader must know.
    """
    counted = f"; {found.units} persons count as one each" if document["unit"] == "person" else ""
    share = f"{100 * document['held_out_share']:g} % of its {document['unit']}s"
    body = [
        paragraph(
            f"{adapter.name}, a model for {document['task']}, on {document['records']} records "
            f"that {site} held out ({share}, never trained on){counted}."
        ),
        paragraph(
            "For this institution only: these figures tell of private records, no noise was added, "
            "and no ε covers them.",
            "loud",
        ),
        *(paragraph(one, "loud") for one in cautions),
        table(
            ("score", "value", "95 % interval"),
            [(name, *_figure(one)) for name, one in found.scores.items()],
            2,
        ),
        paragraph(METHOD, "soft"),
    ]
    if found.classes:
        body += _classes(found)
    if found.confusion is not None:
        labels = list(found.classes)
        rows = [
            (label, *(f"{value:.4g}" for value in row))
            for label, row in zip(labels, found.confusion, strict=True)
        ]
        body += [
            heading("True class by row, predicted class by column"),
            table(("", *labels), rows, len(labels)),
        ]
    if found.bins:
        bins = [(f"{n:.4g}", f"{sure:.3f}", f"{right:.3f}") for n, sure, right in found.bins]
        body += [
            heading("Calibration"),
            table((f"{document['unit']}s", "mean confidence", "share right"), bins, 3),
        ]
    return page(f"{adapter.name} on held-out records of {site}", body)


def _classes(found: HeldOutScores) -> list[str]:
    columns = list(next(iter(found.classes.values())))
    rows = [
        (label, *(_short(name, one) for name, one in scores.items()))
        for label, scores in found.classes.items()
    ]
    chart = [(label, scores["f1"]) for label, scores in found.classes.items() if "f1" in scores]
    return [
        heading("By class"),
        whiskers(chart, "F1, 95 % interval", ends=(0.0, 1.0)),
        table(("", *columns), rows, len(columns)),
    ]


def _figure(one: Interval) -> tuple[str, str]:
    return f"{one.value:.4f}", f"{one.low:.4f} to {one.high:.4f}"


def _short(name: str, one: Interval) -> str:
    if name == "support":
        return f"{one.value:.4g}"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
