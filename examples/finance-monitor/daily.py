"""The short report of a day, from the watch's report.json and the day's predictions.

It quotes headlines, which are public. Its figures are computed without noise and stay at the bank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloister.report_page import heading, page, paragraph, table

# Headlines that the report quotes: the surest bad news of the day.
QUOTED = 3

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CompanyDay:
    """A company's day.

    Attributes:
        company: Its name.
        news: Pieces of news.
        negative: Those that the model calls negative.
        topic: The most frequent topic of those; of all, where none is negative.
    """

    company: str
    news: int
    negative: int
    topic: str


@dataclass(frozen=True)
class Daily:
    """What a report says.

    Attributes:
        day: The date.
        news: Pieces of news of the day.
        alerts: Sentences of the watch's alerts of the day, oldest first.
        stands: What still surges or drifts at its end.
        drift: The features that drift in the last window, each with its PSI.
        companies: By share of negative news, the worst first.
        headlines: The surest bad news, with company and probability.
    """

    day: str
    news: int
    alerts: tuple[str, ...]
    stands: tuple[str, ...]
    drift: tuple[tuple[str, float], ...]
    companies: tuple[CompanyDay, ...]
    headlines: tuple[tuple[str, float, str], ...]


def daily(report: Row, rows: Sequence[Row], day: str) -> Daily:
    """Makes a day's report.

    Args:
        report: The watch's `report.json`.
        rows: The stream's rows up to now, as the watch reads them.
        day: The date, such as 2026-01-18, in UTC.
    """
    own = [row for row in rows if str(row["at"]).startswith(day)]
    last = report["drift"]["last"][-1:]
    bad = sorted(
        (row for row in own if row["label"] == "negative"),
        key=lambda row: -row["probabilities"]["negative"],
    )
    return Daily(
        day=day,
        news=len(own),
        alerts=tuple(
            f"{alert['at'][11:16]} {alert['message']}"
            for alert in report["alerts"]
            if str(alert["at"]).startswith(day)
        ),
        stands=(
            *(f"{one} surges" for one in report["surges"]["stands"]),
            *(f"{one} drifts" for one in report["drift"]["stands"]),
        ),
        drift=tuple(
            (figure["feature"], figure["psi"])
            for window in last
            for figure in window["figures"]
            if figure["drifts"]
        ),
        companies=tuple(
            sorted(
                (_company(name, own) for name in {row["company"] for row in own}),
                key=lambda one: (-one.negative / one.news, one.company),
            )
        ),
        headlines=tuple(
            (row["company"], row["probabilities"]["negative"], row["text"]) for row in bad[:QUOTED]
        ),
    )


def _company(name: str, rows: Sequence[Row]) -> CompanyDay:
    own = [row for row in rows if row["company"] == name]
    bad = [row for row in own if row["label"] == "negative"]
    ((topic, _),) = Counter(row["topic"] for row in bad or own).most_common(1)
    return CompanyDay(name, len(own), len(bad), topic)


def markdown(found: Daily) -> str:
    """The report as Markdown."""
    lines = [f"# News of {found.day}", "", _summary(found), "", "## Alerts", ""]
    lines += [f"- {alert}" for alert in found.alerts] or ["None."]
    lines += ["", "## Companies", "", f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(found)]
    if found.headlines:
        lines += ["", "## The surest bad news", ""]
        lines += [f"- {name} ({share:.2f}): {text}" for name, share, text in found.headlines]
    return "\n".join([*lines, "", f"*{NOTE}*", ""])


def html(found: Daily) -> str:
    """The report as a page of its own."""
    body = [paragraph(_summary(found)), heading("Alerts")]
    body += [paragraph(alert) for alert in found.alerts] or [paragraph("None.")]
    body += [heading("Companies"), table(COLUMNS, _cells(found))]
    if found.headlines:
        body.append(heading("The surest bad news"))
        body += [
            paragraph(f"{name} ({share:.2f}): {text}") for name, share, text in found.headlines
        ]
    return page(f"News of {found.day}", [*body, paragraph(NOTE, "soft")])


COLUMNS = ("company", "news", "negative", "mostly about")
NOTE = (
    "Sentiments and topics are a model's. Figures are computed without noise: this report stays at "
    "the bank."
)


def _cells(found: Daily) -> list[tuple[str, ...]]:
    return [(one.company, str(one.news), str(one.negative), one.topic) for one in found.companies]


def _summary(found: Daily) -> str:
    stands = "; ".join(found.stands) or "nothing stands"
    drift = ", ".join(f"{name} (PSI {psi:.2f})" for name, psi in found.drift) or "nothing"
    return f"{found.news} pieces of news. At the end of the day: {stands}. Drifted: {drift}."


def date_of(seconds: float) -> str:
    """The date of a time in seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
