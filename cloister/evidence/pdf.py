"""A document as PDF pages, by matplotlib: lines and pictures that flow over A4 pages."""

from __future__ import annotations

import io
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread

from cloister.evidence.fonts import ABSENT, MONO, SANS, Fonts, fonts_for
from cloister.evidence.report_document import (
    Block,
    Bullets,
    Document,
    Heading,
    Paragraph,
    Picture,
    Table,
)

A4 = (8.27, 11.69)  # inches
LEFT, WIDTH, TOP, BOTTOM = 0.08, 0.84, 0.95, 0.06  # of the page
LINE = 0.0155  # height of a line of text, of the page
TEXT_WIDTH, TABLE_WIDTH = 98, 118  # characters that fit
DPI = 200  # of pictures, as printers have it
MONO_ADVANCE = 0.602  # width of a character of DejaVu Sans Mono, of its size
POINTS = 72  # an inch


@dataclass(frozen=True)
class _Line:
    text: str
    size: float = 9.0
    is_bold: bool = False
    is_table: bool = False
    is_loud: bool = False
    keeps_next: bool = False

    @property
    def height(self) -> float:
        return LINE * (1.5 if self.size > 10 else 0.8 if self.is_table else 1.0)

    def draw(self, page: Figure, top: float, fonts: Fonts) -> None:
        for start, text in self._parts():
            page.text(
                LEFT + start * MONO_ADVANCE * self.size / POINTS / A4[0],
                top,
                text,
                size=self.size,
                # Fonts of other scripts often have no bold face.
                weight="bold" if self.is_bold and not fonts.foreign & set(text) else "normal",
                family=fonts.families(text, MONO if self.is_table else SANS),
                color="#b00020" if self.is_loud else "black",
                va="top",
                parse_math=False,
            )

    def _parts(self) -> list[tuple[int, str]]:
        """A row's cells with their columns, drawn one by one if wide characters would shift
        them."""
        if not self.is_table or _columns(self.text) == len(self.text):
            return [(0, self.text)]
        return [
            (_columns(self.text[: cell.start()]), cell.group())
            for cell in re.finditer(r"\S+(?: \S+)*", self.text)
        ]


@dataclass(frozen=True)
class _Image:
    figure: Figure
    keeps_next: bool = True

    @property
    def height(self) -> float:
        wide, high = self.figure.get_size_inches()
        return float(high / wide) * WIDTH * A4[0] / A4[1]

    def draw(self, page: Figure, top: float, fonts: Fonts) -> None:
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=DPI)
        stream.seek(0)
        axes = page.add_axes((LEFT, top - self.height, WIDTH, self.height))
        axes.imshow(imread(stream), aspect="auto")
        axes.set_axis_off()


_Item = _Line | _Image


def to_pdf(document: Document, path: Path) -> None:
    """Writes a document's pages.

    Args:
        document: What to write.
        path: The PDF's file.
    """
    fonts = fonts_for([document.title, *(text for b in document.blocks for text in _texts(b))])
    blocks = [_written(block, fonts) for block in document.blocks]
    if fonts.absent:
        blocks.insert(0, Paragraph(ABSENT))
    title = fonts.written(document.title)
    items: list[_Item] = [_Line(line, 15, True) for line in textwrap.wrap(title, 60)]
    for block in blocks:
        items += _items(block)
    with PdfPages(path, metadata={"Title": document.title, "Creator": "cloister"}) as pdf:
        for page in _pages(items, fonts):
            pdf.savefig(page)


def _texts(block: Block) -> Iterator[str]:
    """Yields every text of a block."""
    match block:
        case Heading(text) | Paragraph(text):
            yield text
        case Bullets(items):
            yield from items
        case Table():
            yield from (*block.columns, block.title or "")
            yield from (cell for row in block.rows for cell in row)
        case Picture():
            yield block.caption


def _written(block: Block, fonts: Fonts) -> Block:
    """Returns the block with the code point of each character that no font has."""
    if not fonts.absent:
        return block
    match block:
        case Heading(text) | Paragraph(text):
            return replace(block, text=fonts.written(text))
        case Bullets(items):
            return Bullets([fonts.written(item) for item in items])
        case Table():
            rows = [[fonts.written(cell) for cell in row] for row in block.rows]
            title = None if block.title is None else fonts.written(block.title)
            return Table([fonts.written(name) for name in block.columns], rows, title)
        case Picture():
            return replace(block, caption=fonts.written(block.caption))


def _columns(text: str) -> int:
    """Returns a text's width in a fixed-width font; a wide character counts as two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _items(block: Block) -> Iterator[_Item]:
    keeps = isinstance(block, Heading | Table)
    yield _Line("", keeps_next=keeps)
    match block:
        case Heading(text):
            yield _Line(text, 12, True, keeps_next=True)
        case Paragraph(text, is_loud):
            for line in textwrap.wrap(text, TEXT_WIDTH):
                yield _Line(line, is_bold=is_loud, is_loud=is_loud)
        case Bullets(items):
            for item in items:
                for number, line in enumerate(textwrap.wrap(item, TEXT_WIDTH - 3)):
                    yield _Line(("• " if number == 0 else "   ") + line)
        case Table():
            yield from _table(block)
        case Picture(figure, caption):
            yield _Image(figure)
            for line in textwrap.wrap(caption, 110):
                yield _Line(line, 8)


def _table(table: Table) -> Iterator[_Line]:
    if table.title is not None:
        for line in textwrap.wrap(table.title, 92):
            yield _Line(line, 8.5, True, keeps_next=True)
    every: list[Sequence[str]] = [table.columns, *table.rows]
    widths = [max(_columns(row[i]) for row in every) for i in range(len(table.columns))]
    indent = " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))
    for number, row in enumerate(every):
        cells = "  ".join(
            cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)
        )
        for line in _wrapped(cells.rstrip(), indent):
            yield _Line(line, 6.6, number == 0, is_table=True, keeps_next=number == 0)


def _wrapped(cells: str, indent: str) -> list[str]:
    """Wraps a row of a table; the last column continues on further lines."""
    if len(cells) <= TABLE_WIDTH:
        return [cells]
    head, tail = cells[: len(indent)], cells[len(indent) :]
    room = max(TABLE_WIDTH - len(indent), 20)
    first, *rest = textwrap.wrap(tail, room) or [""]
    return [head + first, *(indent + line for line in rest)]


def _pages(items: Sequence[_Item], fonts: Fonts) -> Iterator[Figure]:
    """Yields pages of items; a heading stays on the page of the item after it."""
    left = list(items)
    while left:
        page, at = Figure(figsize=A4), TOP
        while left and (at == TOP or at - _together(left) >= BOTTOM):
            item = left.pop(0)
            item.draw(page, at, fonts)
            at -= item.height
        yield page


def _together(items: Sequence[_Item]) -> float:
    """Height of the first item with all items that must stay on its page."""
    height = 0.0
    for item in items:
        height += item.height
        if not item.keeps_next:
            break
    return height
