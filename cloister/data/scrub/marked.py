"""Measures how well identifiers are found, on texts in which a person marked them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.load import file_rows
from cloister.data.scrub.replace import Find
from cloister.data.scrub.spans import Span
from cloister.data.values import Number, Row, Value, is_integer, shown
from cloister.errors import DataError


@dataclass(frozen=True)
class Score:
    """The counts for one type of identifier.

    Attributes:
        marked: Spans of the type that were marked.
        covered: Marked spans of which every character is in a found span of any type, so that
            nothing of them would remain.
        found: Spans of the type that were found.
        right: Found spans that overlap a marked span of the type.
    """

    marked: int
    covered: int
    found: int
    right: int

    def to_json(self) -> dict[str, Any]:
        """Returns counts, recall and precision; null if nothing was marked, or nothing found."""
        return {
            "marked": self.marked,
            "covered": self.covered,
            "recall": self.covered / self.marked if self.marked else None,
            "found": self.found,
            "right": self.right,
            "precision": self.right / self.found if self.found else None,
        }


def score(texts: Sequence[tuple[str, Sequence[Span]]], find: Find) -> dict[str, Score]:
    """Compares the spans that are found in texts with those that were marked.

    Args:
        texts: Texts, each with its marked spans.
        find: Finds the identifiers of a text.

    Returns:
        The counts of all types that were marked or found, in alphabetical order.
    """
    marked: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for text, spans in texts:
        own = find(text)
        replaced = {place for span in own for place in range(span.start, span.end)}
        for span in spans:
            marked[span.type] += 1
            covered[span.type] += replaced.issuperset(range(span.start, span.end))
        for span in own:
            found[span.type] += 1
            right[span.type] += any(
                other.type == span.type and other.start < span.end and span.start < other.end
                for other in spans
            )
    types = sorted(marked.keys() | found.keys())
    return {t: Score(marked[t], covered[t], found[t], right[t]) for t in types}


def read_marked(path: Path) -> list[tuple[str, list[Span]]]:
    """Reads texts with marked spans: `{"text": …, "spans": [{"start", "end", "type"}, …]}`.

    Places count characters from 0; `end` is exclusive.

    Raises:
        DataError: The file is missing, damaged or empty, or a row has another form.
    """
    rows = file_rows(path, "test", ("text", "spans"))
    found = [_marked(row, f"{path.name}, row {number}") for number, row in rows]
    if not found:
        raise DataError(f"{path}: no marked texts; give a file with at least one row")
    return found


def _marked(row: Row, where: str) -> tuple[str, list[Span]]:
    text, spans = row.get("text"), row.get("spans")
    if not isinstance(text, str):
        raise DataError(f"{where}: no text; each row needs text and spans")
    if isinstance(spans, str) or not isinstance(spans, Sequence):
        raise DataError(f"{where}: no list of spans; write [] if nothing is marked")
    return text, list(_spans(spans, text, where))


def _spans(spans: Sequence[Value], text: str, where: str) -> Iterator[Span]:
    for number, span in enumerate(spans, 1):
        kind = span.get("type") if isinstance(span, Mapping) else None
        start = _place(span.get("start")) if isinstance(span, Mapping) else None
        end = _place(span.get("end")) if isinstance(span, Mapping) else None
        if not isinstance(kind, str) or start is None or end is None:
            raise DataError(f"{where}: span {number} needs start, end (integers) and type (text)")
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"{where}: span {number} is from {start} to {end}, but the text from 0 to "
                f"{len(text)}; correct it"
            )
        yield Span(start, end, shown(kind).upper(), "")


def _place(value: Value) -> int | None:
    """Returns a place as an integer; None: it is not an integer, or has too many digits."""
    if not isinstance(value, Number) or not is_integer(value.written) or len(value.written) > 9:
        return None
    return int(value.written)
