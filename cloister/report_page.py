"""Writes reports as one self-contained HTML page: no script, no link; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# Blue is for, vermilion against: with every kind of colour blindness they differ (Okabe and Ito
# 2008, Color Universal Design).
FOR, AGAINST = "0,114,178", "213,94,0"

STYLE = f"""\
:root {{ color-scheme: light dark; --ink: #1a1a1a; --soft: #5b5b5b; --line: #d9d9d9;
        --card: #f6f7f9; --page: #fff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #ececec; --soft: #a8a8a8; --line: #3c3f44;
        --card: #23262b; --page: #16181b; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: var(--ink);
       background: var(--page); max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.2rem; margin: 2.4rem 0 .6rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .3rem; }}
p {{ margin: .4rem 0; max-width: 46rem; }}
.soft {{ color: var(--soft); font-size: .9rem; }}
.loud {{ border-left: .3rem solid #d55e00; padding: .4rem .8rem; background: var(--card); }}
.wide, pre {{ overflow-x: auto; }}
pre {{ background: var(--card); padding: .6rem .8rem; border-radius: .3rem; font-size: .85rem; }}
table {{ border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
         border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }}
th {{ font-weight: 600; color: var(--soft); }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
.card {{ background: var(--card); border-radius: .5rem; padding: .9rem 1.1rem; margin: 1rem 0;
        break-inside: avoid; }}
.heat {{ line-height: 2.1; margin: .3rem 0 .7rem; overflow-wrap: anywhere; }}
.heat span {{ padding: .12rem .1rem; border-radius: .2rem; }}
.heat .against {{ text-decoration: underline dotted rgb({AGAINST});
                 text-underline-offset: .25rem; }}
.label {{ display: inline-block; font-weight: 600; margin-right: .6rem; }}
svg {{ max-width: 100%; height: auto; }}
svg text, svg .soft {{ fill: var(--ink);
                      font: 13px system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; }}
svg .soft {{ fill: var(--soft); }}
svg .line {{ stroke: var(--line); }}
@media print {{ body {{ padding: 0; font-size: 10pt; }} }}
"""


def page(title: str, body: Sequence[str]) -> str:
    """Returns a whole page in HTML.

    Args:
        title: Its title, as text.
        body: Parts in HTML, in their order.
    """
    parts = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{parts}\n</body>\n</html>\n"
    )


def heading(text: str, rank: int = 2) -> str:
    """Returns a heading of the given rank in HTML."""
    return f"<h{rank}>{escape(text)}</h{rank}>"


def paragraph(text: str, kind: str = "") -> str:
    """Returns a paragraph in HTML; `soft` is small and grey, `loud` is a warning."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """Returns a table of texts in HTML; its last `numbers` columns are aligned as numbers."""
    first = len(columns) - numbers

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' * (place >= first)}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(row)
        )

    lines = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = cells(columns, "th")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody>'
        "</table></div>"
    )


def heat(pieces: Sequence[str], after: Sequence[str], values: Sequence[float]) -> str:
    """Returns a text in HTML with pieces coloured by their values, relative to the largest."""
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    parts = []
    for piece, follows, value in zip(pieces, after, values, strict=True):
        strength = 0.6 * abs(value) / largest
        colour, kind = (FOR, "for") if value >= 0 else (AGAINST, "against")
        title = escape(f"{value:+.3g}")
        mark = f' class="{kind}"' if strength > 0.06 and value < 0 else ""
        parts.append(
            f'<span{mark} style="background:rgba({colour},{strength:.2f})" title="{title}">'
            f"{escape(piece)}</span>{escape(follows)}"
        )
    return f'<div class="heat">{"".join(parts)}</div>'
