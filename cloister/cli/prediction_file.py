"""Writes predictions to a file row by row; the file appears complete or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.files import bad_file, whole_file
from cloister.owner_only import FILE

if TYPE_CHECKING:
    from cloister.serving.abstention import Decided
    from cloister.serving.predictions import Prediction

    Row = Prediction | Decided


def write_predictions(
    out: Path, predictions: Iterable[Row], names: Sequence[str], *, as_table: bool
) -> int:
    """Writes predictions one after another; memory does not grow with their number.

    Only the file's owner can read it.

    Args:
        out: The file; an existing one is replaced.
        predictions: The predictions, in the inputs' order.
        names: The study's labels, for a table's columns.
        as_table: Write CSV; otherwise one JSON object per line.

    Returns:
        The number of predictions.

    Raises:
        BadFileError: The file cannot be written; an incomplete one is removed.
    """
    count = 0
    try:
        with whole_file(out, FILE) as file:
            for text in row_texts(predictions, names, as_table=as_table):
                file.write(text.encode())
                count += 1
    except OSError as error:
        raise bad_file(error, "written") from error
    return count


def row_texts(
    predictions: Iterable[Row], names: Sequence[str], *, as_table: bool, is_first: bool = True
) -> Iterator[str]:
    """Yields a prediction's text each, with its line's end; a table's header is the first one's.

    Args:
        predictions: In the inputs' order.
        names: The study's labels, for a table's columns.
        as_table: CSV; else a JSON object a line.
        is_first: Whether these are the file's first.
    """
    for number, one in enumerate(predictions):
        if not as_table:
            yield json.dumps(one.to_json(), ensure_ascii=False) + "\n"
            continue
        row, text = _cells(one, names), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if is_first and number == 0:
            writer.writerow(row)
        writer.writerow(row.values())
        yield text.getvalue()


def _cells(one: Row, names: Sequence[str]) -> dict[str, object]:
    """Returns a row of the table, by column.

    The columns depend on the task: the label and each label's probability; labels as a JSON list
    and their probabilities; score and grade; items and scores as lists; or the nearest passages.
    A last column says whether the text was cut.
    """
    from cloister.serving.abstention import Decided
    from cloister.serving.predictions import (
        MOST_FOUND,
        Classified,
        Labelled,
        Ranked,
        Retrieved,
        Scored,
    )

    cut = str(one.is_cut).lower()
    row: dict[str, object] = {}
    if isinstance(one, Classified):
        row = {"label": one.label, "is_cut": cut}
    elif isinstance(one, Decided):
        row = {"label": one.label, "confidence": f"{one.confidence:.6f}", "reason": one.reason}
        row["is_cut"] = cut
    elif isinstance(one, Labelled):
        row = {"labels": json.dumps(one.labels, ensure_ascii=False), "is_cut": cut}
    elif isinstance(one, Scored):
        grade = "" if one.grade is None else f"{one.grade:g}"
        row = {"score": f"{one.score:.6g}", "grade": grade, "is_cut": cut}
    elif isinstance(one, Retrieved):
        for place in range(min(MOST_FOUND, len(names))):
            found = one.passages[place] if place < len(one.passages) else None
            row[f"passage {place + 1}"] = "" if found is None else found.id
            row[f"similarity {place + 1}"] = "" if found is None else f"{found.similarity:.6f}"
        row["is_cut"] = cut
    elif isinstance(one, Ranked):
        items = json.dumps([ranked.item for ranked in one.items], ensure_ascii=False)
        scores = json.dumps([round(ranked.score, 6) for ranked in one.items])
        row = {"items": items, "scores": scores, "is_cut": cut}
    if isinstance(one, Classified | Decided | Labelled):
        row |= {f"probability of {name}": f"{one.probabilities[name]:.6f}" for name in names}
    return row
