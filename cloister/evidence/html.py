"""A document as one self-contained HTML page: no script, no link, ready for print."""

from __future__ import annotations

import io
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from cloister.evidence.report_document import (
    Block,
    Bullets,
    Document,
    Heading,
    Paragraph,
    Picture,
    Table,
)

STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-size: .85rem; }
.wide { overflow-x: auto; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
td:last-child { white-space: normal; }
.loud { border-left: .3rem solid #b00020; padding-left: .8rem; font-weight: 600; }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #444; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; }
               .wide { overflow: visible; } table { font-size: 7.5pt; }
               tr, figure { break-inside: avoid; } h2 { break-after: avoid; } }
"""


def to_html(document: Document) -> str:
    """Renders a document; every text in it is escaped."""
    body = "\n".join(_block(block, number) for number, block in enumerate(document.blocks))
    title = escape(document.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _block(block: Block, number: int) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text, is_loud):
            opening = '<p class="loud">' if is_loud else "<p>"
            return f"{opening}{escape(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Picture(figure, caption):
            words = escape(caption)
            return f"<figure>{_svg(figure, number)}<figcaption>{words}</figcaption></figure>"


def _table(table: Table) -> str:
    caption = "" if table.title is None else f"<caption>{escape(table.title)}</caption>"
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _svg(figure: Figure, number: int) -> str:
    """Renders a figure as SVG; the salt keeps the ids of several figures apart."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"figure {number}", "svg.fonttype": "path"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :]
