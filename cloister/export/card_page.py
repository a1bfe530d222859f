"""Renders a model's card as one page in HTML, for people who do not read Markdown.

A card quotes other parties: sites' statements, labels, study names. So the page holds no script, no
link and no picture from elsewhere, whatever the card says; markup in a card is shown as text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from cloister.errors import BadFileError, UsageError
from cloister.export.front_matter import without_front_matter
from cloister.files import bad_file, write_whole
from cloister.report_page import page

# The page's file name; it is written beside the card.
PAGE = "card.html"
# Width of the names, of the longest bar, and of the figures beside it; height of a row, in pixels.
NAME, BAR, FIGURES, STEP = 230, 260, 260, 26
# Characters of a name that fit into NAME pixels.
MOST_NAME = 32


@dataclass(frozen=True)
class SizeBar:
    """One model in the picture of sizes.

    Attributes:
        name: The model's name.
        bytes: The model's size in bytes.
        figures: The text beside the bar.
    """

    name: str
    bytes: int
    figures: str


def card_page(card: str, bars: Sequence[SizeBar] = ()) -> str:
    """Renders a card as a page that needs no other file.

    Args:
        card: A card in Markdown; its front matter is for programs and is left out.
        bars: Models whose sizes are drawn above the text; none: no picture.

    Returns:
        HTML without scripts, links or pictures from elsewhere.
    """
    text = without_front_matter(card)
    first, _, rest = text.partition("\n")
    title = first.removeprefix("# ") if first.startswith("# ") else "Model card"
    body = rest if first.startswith("# ") else text
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["link", "image", "autolink", "reference"])
    shown = reader.render(body)
    for tag, wide in (("<table>", '<div class="wide"><table>'), ("</table>", "</table></div>")):
        shown = shown.replace(tag, wide)  # a wide table scrolls, not the page
    return page(title, [size_picture(bars), shown])


def write_card_page(card: Path, page_file: Path) -> None:
    """Writes the page of a card to a new file.

    Args:
        card: The card, `README.md`.
        page_file: The new file.

    Raises:
        UsageError: Something has this name already.
        BadFileError: There is no card, or the page cannot be written.
    """
    if os.path.lexists(page_file):
        raise UsageError(f"{page_file} exists already and is not overwritten; choose another name")
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{card}: no card can be read here ({error}); give a run") from error
    try:
        write_whole(page_file, card_page(text).encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def size_picture(bars: Sequence[SizeBar]) -> str:
    """Draws sizes as bars, the longest one BAR pixels wide; empty if there are no bars."""
    if not bars:
        return ""
    largest = max(bar.bytes for bar in bars) or 1
    rows = []
    for place, bar in enumerate(bars):
        y, width = STEP * place, BAR * bar.bytes / largest
        rows.append(
            f'<text x="{NAME - 8}" y="{y + 17}" text-anchor="end">'
            f"{escape(bar.name[:MOST_NAME])}</text>"
            f'<rect x="{NAME}" y="{y + 5}" width="{width:.1f}" height="{STEP - 10}" '
            'fill="rgb(0,114,178)"/>'
            f'<text class="soft" x="{NAME + width + 8:.1f}" y="{y + 17}">{escape(bar.figures)}'
            "</text>"
        )
    wide, high = NAME + BAR + FIGURES, STEP * len(bars)
    return (
        f'<svg viewBox="0 0 {wide} {high}" width="{wide}" role="img" '
        f'aria-label="Size of each model">{"".join(rows)}</svg>'
    )
