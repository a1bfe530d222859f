"""Cuts a logical batch into passes through the network: which records share which shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.tasks.task import IGNORE, BatchShape, Example
from cloister.training.shapes import BatchShapes, cut
from cloister.training.units import UnitExamples


@dataclass(frozen=True)
class Row:
    """One record of a forward and backward pass.

    Attributes:
        unit: Index of its unit in the logical batch.
        example: The encoded record.
    """

    unit: int
    example: Example


@dataclass(frozen=True)
class Pass:
    """Records that go through the network together.

    Attributes:
        shape: Fixed; at least as many rows as records.
        rows: The records, in order.
    """

    shape: BatchShape
    rows: tuple[Row, ...]


def passes(units: Sequence[UnitExamples], shapes: BatchShapes) -> Iterator[Pass]:
    """Cuts units into passes of one edge each, longest first.

    Guarantees:
        The order of a unit's records depends on the unit alone: by edge, then in the unit's order.
        The longest records come first, so that a lack of memory shows early.
    """
    by_edge: dict[int, list[Row]] = {}
    for number, unit in enumerate(units):
        for example in unit:
            edge = shapes.edge(len(example.input_ids))
            by_edge.setdefault(edge, []).append(Row(number, example))
    for edge, rows in sorted(by_edge.items(), reverse=True):
        counts = shapes.rows(edge)
        at = 0
        for count, taken in cut([len(r.example.input_ids) == edge for r in rows], counts, edge):
            yield Pass(BatchShape(count, edge, counts), tuple(rows[at : at + taken]))
            at += taken


def fits(example: Example, longest: int, vocabulary: int, outputs: int) -> bool:
    """Whether a record can go through the network; checked before it reaches a device.

    Args:
        example: The record.
        longest: The longest padded length, in tokens.
        vocabulary: Token ids that the base has embeddings for.
        outputs: Number of classes, tags or tokens that can be predicted.
    """
    if example.rejected is not None and not fits(example.rejected, longest, vocabulary, outputs):
        return False
    ids, target = example.input_ids, example.target
    if not 1 <= len(ids) <= longest or min(ids) < 0 or max(ids) >= vocabulary:
        return False
    if not all(0 <= output < outputs for output, _ in example.wanted):
        return False
    if example.segments and not (
        len(example.segments) == len(ids)
        and 0 <= min(example.segments) <= max(example.segments) < 2
    ):
        return False
    if isinstance(target, int):
        return 0 <= target < outputs
    return len(target) == len(ids) and all(t == IGNORE or 0 <= t < outputs for t in target)
