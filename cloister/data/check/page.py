"""Writes a report as one page of HTML with plots, for the operator only.

The file's contents may be hostile: they are escaped, the page has no script, and its policy
(`default-src 'none'`) lets a browser load nothing. Only its owner may read it: it names persons.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from cloister.data.check.report import CheckReport
from cloister.data.outputs import check_place
from cloister.files import write_whole
from cloister.owner_only import FILE
from cloister.printable import one_line

# Most bars of a plot, and most characters of a name beside a bar.
MOST_BARS, MOST_NAME = 40, 60
_BAR, _LEFT, _WIDTH = 20, 260, 420  # pixels: a bar's height, where bars begin, the longest
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
td, th { text-align: left; padding: .1em 1em .1em 0; vertical-align: top }
rect { fill: #3b6ea5 } text { font: 13px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } text { fill: #ddd } }
"""


def write_page(report: CheckReport, path: Path) -> None:
    """Writes the page of a report, readable by its owner only.

    Raises:
        UsageError: The path exists already, or its folder does not.
        OSError: It cannot be written.
    """
    check_place(path, "--page")
    write_whole(path, page(report).encode("utf-8", "replace"), mode=FILE)


def page(report: CheckReport) -> str:
    """Returns the page as HTML."""
    sections = report.sections
    name = _shown(report.detected.path.name)
    parts = [
        f"<h1>{name}</h1><p>{_shown(str(report.detected), 500)}</p>",
        f"<p>{report.rows:,} rows. Private: true counts of private records.</p>",
        "<h2>What looks wrong</h2>",
        _list(str(finding) for finding in report.findings)
        if report.findings
        else "<p>This check found nothing.</p>",
        _bars("Lengths of texts, in characters", _pairs(sections["texts"]["histogram"])),
        _bars("Languages of a sample", sections["languages"]["counts"].items()),
    ]
    if "labels" in sections:
        parts.append(_bars("Labels", sections["labels"]["counts"].items()))
    if "scores" in sections and sections["scores"]["counts"]:
        parts.append(_bars("Scores", sections["scores"]["counts"].items()))
    if "units" in sections:
        parts.append(_bars("Persons by number of records", _pairs(sections["units"]["histogram"])))
        largest = ((p["person"], p["records"]) for p in sections["units"]["largest"])
        parts.append(_bars("Persons with the most records", largest))
    duplicates = sections["duplicates"]
    copies = (("exact", duplicates["exact"]), ("near", duplicates["near"]))
    parts.append(_bars("Copies of an earlier text", copies))
    if "tokens" in sections:
        cuts = sections["tokens"]["cuts"]
        bars = ((f"max_length {cut['max_length']}", cut["texts_cut"]) for cut in cuts)
        parts.append(_bars("Texts that a maximal length cuts", bars))
    parts.append(_columns(report))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        '<meta name="referrer" content="no-referrer">'
        f"<title>{name}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _shown(text: str, most: int = MOST_NAME) -> str:
    return escape(one_line(text, most))


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_shown(item, 1000)}</li>' for item in items)}</ul>"


def _pairs(histogram: Iterable[dict[str, object]]) -> Iterable[tuple[str, int]]:
    """Returns names and counts of a histogram; the first field of its objects is the name."""
    for entry in histogram:
        name, count = entry.values()
        assert isinstance(count, int)
        yield str(name), count


def _bars(title: str, values: Iterable[tuple[str, int]]) -> str:
    """Returns a plot of horizontal bars, for the first `MOST_BARS` values."""
    bars = list(values)
    shown, more = bars[:MOST_BARS], len(bars) - MOST_BARS
    largest = max((count for _, count in shown), default=0) or 1
    drawn = []
    for number, (name, count) in enumerate(shown):
        top = number * _BAR
        width = round(_WIDTH * count / largest)
        drawn.append(
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{_shown(name, 36)}</text>'
            f'<rect x="{_LEFT}" y="{top + 3}" width="{width}" height="{_BAR - 6}"/>'
            f'<text x="{_LEFT + width + 6}" y="{top + 14}">{count:,}</text>'
        )
    size = f'width="{_LEFT + _WIDTH + 90}" height="{len(shown) * _BAR + 4}"'
    rest = f"<p>… and {more:,} more</p>" if more > 0 else ""
    heading = escape(title)
    return (
        f'<h2>{heading}</h2><svg role="img" aria-label="{heading}" {size}>{"".join(drawn)}</svg>'
        f"{rest}"
    )


def _columns(report: CheckReport) -> str:
    rows = [
        f"<tr><td>{_shown(column['name'])}</td><td>"
        f"{_shown(', '.join(f'{k} {n:,}' for k, n in column['kinds'].items()), 200)}</td>"
        f"<td>{column['missing']:,}</td></tr>"
        for column in report.sections["columns"][:MOST_BARS]
    ]
    head = "<tr><th>column</th><th>holds</th><th>missing</th></tr>"
    return f"<h2>Columns</h2><table>{head}{''.join(rows)}</table>"
