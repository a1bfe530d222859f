"""The shapes of passes through the network: a finite list, fixed before any record is read.

A record is padded to the smallest *edge* that holds it, for any other records, and a batch holds
records of one edge only. The number of rows may depend on the drawn batch: every row count of an
edge gives a record the same gradient, bit for bit, which the machine's proof (`training.proof`)
shows before the counts are used. Rows without a record are dummies.

Math:
    In a matrix product a row of the result depends on its own row alone, as long as the kernel and
    its order of summation stay. Both follow from the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cloister.tasks.task import BatchShape

# Edges are multiples of 8, so that a batch's tokens fill whole vectors (16 float32 in AVX-512 for
# two rows, 8 bfloat16 on tensor cores).
STEP = 8
# Fixed cost of a pass, in tokens: on one core MiniLM takes 20 ms per pass and 0.6 ms per token,
# forward and backward (`benchmarks/isolation.py`). It affects time only.
PASS_TOKENS = 32


def edges(max_length: int) -> tuple[int, ...]:
    """The padded lengths of a study that states none: 8, 16, … 64, then by 16 to 128, by 32 to 256,
    and so on.

    Up to 64 tokens a record gets at most 7 tokens of padding; beyond, at most a quarter of its own
    length. On public texts of 16 and 27 tokens on average this pads by 24 and 13 % (banking77,
    rt_polarity), where edges at 16, 32, 48, 64 pad by 36 and 28 %.

    Args:
        max_length: Longest record in tokens; it is the last edge.
    """
    found, edge = [], STEP
    while edge < max_length:
        found.append(edge)
        edge += max(STEP, 2 ** (edge.bit_length() - 3))
    return (*found, max_length)


@dataclass(frozen=True)
class BatchShapes:
    """Padded lengths, and the row counts of each.

    Attributes:
        counts: By edge, ascending: the row counts that give a record equal bits.
        threads: Number of threads of the proof; None: not proven on any machine.
    """

    counts: tuple[tuple[int, tuple[int, ...]], ...]
    threads: int | None = None

    @property
    def longest(self) -> int:
        """Returns the longest padded length, in tokens."""
        return self.counts[-1][0]

    @property
    def one_by_one(self) -> bool:
        """Whether every record has its own pass, because of the proof or the policy."""
        return all(rows == (1,) for _, rows in self.counts)

    def edge(self, tokens: int) -> int:
        """Returns the padded length of a record, a function of its own length alone.

        Raises:
            ValueError: It is longer than the last edge.
        """
        for edge, _ in self.counts:
            if tokens <= edge:
                return edge
        raise ValueError(f"{tokens} tokens; the longest shape has {self.longest}")

    def rows(self, edge: int) -> tuple[int, ...]:
        """Returns the row counts of a padded length, ascending."""
        return dict(self.counts)[edge]

    def all(self) -> tuple[BatchShape, ...]:
        """Returns every batch shape, shortest first."""
        return tuple(
            BatchShape(rows, edge, counts) for edge, counts in self.counts for rows in counts
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the shapes as JSON values."""
        return {
            "counts": [[edge, list(rows)] for edge, rows in self.counts],
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BatchShapes:
        """Builds the shapes from the values of `to_json`."""
        return cls(
            tuple((int(edge), tuple(map(int, rows))) for edge, rows in value["counts"]),
            value["threads"],
        )


def candidates(
    max_length: int,
    max_tokens: int,
    max_rows: int | None = None,
    padded: Sequence[int] | None = None,
) -> BatchShapes:
    """Returns the row counts that a proof tries: all powers of two that fit.

    Args:
        max_length: Longest record in tokens.
        max_tokens: Most padded tokens of a batch; a longer record goes alone.
        max_rows: Most records of a batch; None: as many as the tokens allow.
        padded: The padded lengths, ascending, up to `max_length`; None: those of `edges`.
    """

    def counts(edge: int) -> tuple[int, ...]:
        most = max(max_tokens // edge, 1)
        most = most if max_rows is None else min(most, max_rows)
        return tuple(2**power for power in range(most.bit_length()))

    return BatchShapes(tuple((edge, counts(edge)) for edge in padded or edges(max_length)))


def one_by_one(max_length: int) -> BatchShapes:
    """Returns shapes of one record each, which need no proof: no other record is in a pass."""
    return BatchShapes(tuple((edge, (1,)) for edge in edges(max_length)))


def cut(full: Sequence[bool], counts: tuple[int, ...], edge: int) -> list[tuple[int, int]]:
    """Cuts the records of one edge into passes.

    Args:
        full: For each record, whether it has no padding at this edge.
        counts: The row counts to choose from, ascending.
        edge: Padded tokens of a record.

    Returns:
        For each pass its row count and how many records it takes, in order; dummies fill the rest.

    Guarantees:
        A pass with a full record has padding in another row, unless every record goes alone:
        without any padding in a batch transformers leaves the mask out and another attention kernel
        runs, so the presence of padding must not depend on other records.
    """
    passes: list[tuple[int, int]] = []
    at = 0
    while at < len(full):
        rows = _next_rows(len(full) - at, counts, edge)
        taken = min(rows, len(full) - at)
        if counts != (1,) and taken == rows and all(full[at : at + rows]):
            rows = max(rows, counts[min(1, len(counts) - 1)])
            taken = min(rows - 1, len(full) - at)
        passes.append((rows, taken))
        at += taken
    return passes


def cost(records: int, counts: tuple[int, ...], edge: int, *, full: bool = False) -> int:
    """Cost of the cheapest cut of some records, in tokens; each pass costs PASS_TOKENS more.

    Args:
        records: The records of one edge.
        counts: The row counts to choose from, ascending.
        edge: Padded tokens of a record.
        full: Whether the records have no padding, so that every pass has a dummy or they go alone.
    """
    return sum(rows * edge + PASS_TOKENS for rows, _ in cut([full] * records, counts, edge))


def records_at_an_edge(expected_batch_size: int, lengths: int) -> int:
    """A round number near the records of a batch at one edge, if lengths were spread evenly.

    It is a power of two, so that studies of nearly equal batches share a proof. Lengths of private
    records cannot be asked for; the number affects time only.

    Args:
        expected_batch_size: `training.expected_batch_size`.
        lengths: Number of padded lengths.
    """
    mean = expected_batch_size / lengths
    return int(2 ** max(0, round(math.log2(mean))))


def _next_rows(records: int, counts: tuple[int, ...], edge: int) -> int:
    """The row count of the next pass in the cheapest cut of `records` records."""
    return counts[-1] if records >= counts[-1] else _table(counts, edge)[records]


@lru_cache(maxsize=1024)
def _table(counts: tuple[int, ...], edge: int) -> tuple[int, ...]:
    """By number of records, fewer than the largest count: the next row count, largest first."""
    cost, best = [0], [counts[0]]
    for records in range(1, counts[-1]):
        least, negative = min(
            (cost[max(records - rows, 0)] + rows * edge + PASS_TOKENS, -rows) for rows in counts
        )
        cost.append(least)
        best.append(-negative)
    return tuple(best)
