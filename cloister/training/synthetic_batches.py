"""Synthetic batches that test a shape: probes in several rows, beside random records and dummies.

Their tokens are drawn from the vocabulary; they have no real record.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cloister.data.records import ONE_LABEL, POOLED
from cloister.tasks.pairs import TextPairs
from cloister.tasks.task import IGNORE, BatchShape, Example, Task
from cloister.training.passes import Pass, Row

# Items of a drawn person: the next one, and some that are no candidates.
SEEN = 5


@dataclass(frozen=True)
class Trial:
    """One pass with probes among its rows.

    Attributes:
        group: The pass.
        slots: For each probe, the rows that hold it.
    """

    group: Pass
    slots: tuple[tuple[int, ...], ...]


class SyntheticBatches:
    """Draws trials for a task.

    Args:
        task: The task whose examples are drawn.
        vocabulary: Number of token ids of the base.
        seed: Seed of the draws.
    """

    def __init__(self, task: Task, vocabulary: int, seed: int = 0) -> None:
        self._task = task
        self._vocabulary = vocabulary
        self._draw = random.Random(seed)

    def example(self, tokens: int) -> Example:
        """Draws a random record of this number of tokens."""
        ids = tuple(self._draw.randrange(self._vocabulary) for _ in range(tokens))
        labels = len(self._task.labels)
        if isinstance(self._task, TextPairs) and self._task.compare is not None:
            first = self._draw.randint(1, tokens)
            parts = (0,) * first + (1,) * (tokens - first)
            return Example(ids, self._draw.randrange(labels), segments=parts)
        if self._task.record_kind in ONE_LABEL:
            return Example(ids, self._draw.randrange(labels))
        if self._task.record_kind == "items":
            target, *seen = self._draw.sample(range(labels), min(labels, SEEN))
            return Example(ids, target, seen=tuple(seen))
        if self._task.record_kind in POOLED:
            wanted = tuple((output, self._draw.random()) for output in range(labels))
            return Example(ids, 0, wanted=wanted)
        if self._task.record_kind == "tokens":
            return Example(ids, tuple(self._draw.randrange(labels) for _ in ids))
        learnt = self._draw.randrange(max(tokens - 1, 1))
        return Example(ids, (IGNORE,) * learnt + ids[learnt:])

    def probes(self, shape: BatchShape, previous: int) -> tuple[Example, ...]:
        """Draws two records of a padded length: one with padding, one without.

        Args:
            shape: Its length is the edge.
            previous: The edge below it, in tokens.
        """
        shorter = max(shape.length - 1, 1)
        padded = self._draw.randint(min(previous + 1, shorter), shorter)
        return self.example(padded), self.example(shape.length)

    def trial(
        self,
        shape: BatchShape,
        probes: tuple[Example, ...],
        records: int,
        only: int | None = None,
    ) -> Trial:
        """Draws a pass of a shape; about half of its rows are probes, in random places.

        Args:
            shape: The shape to try.
            probes: The two probes, with padding and without; a single record is the first.
            records: Number of records; dummies fill the rest.
            only: Index of a probe that is used once, with random companions only, all with padding.
        """
        count = min(max(records, 1), shape.rows)
        own: list[int | None] = [None] * count
        own[0] = only or 0
        for row in range(1, count if only is None else 1):
            if row == 1 or self._draw.random() < 0.5:
                own[row] = row % len(probes)
        longest = shape.length if only is None else max(shape.length - 1, 1)
        self._draw.shuffle(own)
        examples = [
            self.example(self._draw.randint(1, longest)) if probe is None else probes[probe]
            for probe in own
        ]
        slots = tuple(
            tuple(row for row, probe in enumerate(own) if probe == number)
            for number in range(len(probes))
        )
        rows = tuple(Row(unit, example) for unit, example in enumerate(examples))
        return Trial(Pass(shape, rows), slots)
