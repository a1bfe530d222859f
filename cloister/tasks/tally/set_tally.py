"""Sums for tasks in which a record has a set: labels of a text, or entities of a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from cloister.tasks.multilabel import THRESHOLD, MultiLabelClassification
from cloister.tasks.tally.tallies import COUNT, class_scores, macro_f1
from cloister.tasks.task import Batch
from cloister.tasks.token import TokenClassification, spans_of, word_tags

Things = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class SetTally:
    """Precision, recall and F1 of labels or entities, over all records and by kind, and loss.

    A record's values: 1; whether its set is exactly right; its loss; and for each kind the numbers
    of right, given and true ones.

    Attributes:
        task: The task.
    """

    task: MultiLabelClassification | TokenClassification

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The labels, or the types of entities."""
        labels = self.task.labels
        is_labels = isinstance(self.task, MultiLabelClassification)
        return labels if is_labels else tuple(tag[2:] for tag in labels[1::2])  # O, B-x, I-x, …

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a record's values."""
        parts = ("right", "given", "true")
        return (COUNT, "exact", "loss", *(f"{what} {one}" for what in parts for one in self.kinds))

    @property
    def shares(self) -> frozenset[str]:
        """The exact matches; a sentence's entities are not scored as a whole."""
        is_labels = isinstance(self.task, MultiLabelClassification)
        return frozenset({"exact_match"} if is_labels else ())

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values; see `TaskTally.rows`."""
        losses = self.task.record_losses(outputs, batch).double().numpy()
        found = np.zeros((len(losses), len(self.names)))
        place = {kind: n for n, kind in enumerate(self.kinds)}
        kinds = len(place)
        for row, (given, true) in enumerate(self._sets(outputs, batch)):
            both = set(given) & set(true)
            found[row, :3] = 1, set(given) == set(true), losses[row]
            for part, things in enumerate((both, set(given), set(true))):
                for thing in things:
                    if thing[0] in place:
                        found[row, 3 + part * kinds + place[thing[0]]] += 1
        return found

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the scores that are functions of the sums, under the meter's names."""
        counts = self._counts(sums)
        whole = class_scores(*(part.sum(axis=-1) for part in counts))
        loss = sums[..., 2] / sums[..., 0]
        if isinstance(self.task, MultiLabelClassification):
            exact = sums[..., 1] / sums[..., 0]
            macro = macro_f1(*counts)
            return {"micro_f1": whole["f1"], "macro_f1": macro, "exact_match": exact, "loss": loss}
        order = ("f1", "precision", "recall")
        return {**{name: whole[name] for name in order}, "loss": loss}

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns precision, recall, F1 and support of each label or type."""
        counts = self._counts(sums)
        return {
            kind: class_scores(*(part[..., n] for part in counts))
            for n, kind in enumerate(self.kinds)
        }

    def _counts(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = sums[..., 3:].reshape(*sums.shape[:-1], 3, len(self.kinds))
        return found[..., 0, :], found[..., 1, :], found[..., 2, :]

    def _sets(self, outputs: Tensor, batch: Batch) -> list[tuple[Things, Things]]:
        """Returns what each record was given, and what it has; the kind of each thing is first."""
        if isinstance(self.task, TokenClassification):
            given = [spans_of(tags) for tags in word_tags(outputs, batch, self.task.labels)]
            return list(zip(given, (spans_of(e.reference) for e in batch.examples), strict=True))
        sides = (outputs.double().sigmoid() > THRESHOLD, batch.target > 0)
        found, true = ([self._labels(row) for row in side.tolist()] for side in sides)
        return list(zip(found, true, strict=True))

    def _labels(self, row: Sequence[bool]) -> Things:
        return [(kind,) for kind, has in zip(self.kinds, row, strict=True) if has]
