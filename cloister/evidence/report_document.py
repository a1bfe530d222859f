"""A document as a value: blocks that HTML and PDF renderers can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Heading:
    """The heading that starts a section of a document."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text, which may be marked as a warning.

    Attributes:
        text: Plain text.
        is_loud: Whether it must not be overlooked.
    """

    text: str
    is_loud: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of claims, one for each bullet."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table: columns with their headings, and rows.

    Attributes:
        columns: Names of the columns.
        rows: Cells as text.
        title: The table's title; None: the section's heading is enough.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None


@dataclass(frozen=True)
class Picture:
    """A plot, as PNG and with its caption.

    Attributes:
        figure: The drawn figure.
        caption: What it shows, in words that can replace it.
    """

    figure: Figure
    caption: str


Block = Heading | Paragraph | Bullets | Table | Picture


@dataclass(frozen=True)
class Document:
    """A document's title and blocks, independent of the output format.

    Attributes:
        title: Its title.
        blocks: Its blocks in order.
    """

    title: str
    blocks: Sequence[Block]
