"""Formats figures of agreement as rows of a table, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloister.labelling.agreement import AgreementReport, agreement
from cloister.labelling.annotated import read_annotated

# Name, value, and both ends of the interval.
TableRow = tuple[str, float | None, float | None, float | None]


def table_of(report: AgreementReport) -> list[TableRow]:
    """Returns the coefficients of whole answers, then those of each label."""
    return [
        (f.name if f.label is None else f"{f.label}: {f.name}", f.value, f.low, f.high)
        for f in report.figures
    ]


def compared_with(own: Path, others: Sequence[Path], seed: int = 0) -> list[TableRow]:
    """Computes the agreement of one annotator's file with the files of others.

    Raises:
        CloisterError: A file cannot be read, or no record has an answer in two files.
    """
    return table_of(agreement(read_annotated([own, *others]), seed))
