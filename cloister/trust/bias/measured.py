"""Measures a model on groups of public records, and compares it with another of the same task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cloister.data.records import LabelsRecord, Record, TextRecord
from cloister.errors import UsageError
from cloister.serving.model import Model
from cloister.serving.predictions import Classified, Labelled, Scored
from cloister.trust.attack.measured import score
from cloister.trust.bias.groups import Groups
from cloister.trust.bias.rates import (
    LabelGap,
    LabelRates,
    calibration,
    chance_of_gap,
    label_gap,
    label_rates,
    score_gap,
)
from cloister.trust.intervals import Interval, difference, mean
from cloister.trust.outcomes import METRICS, Outcomes, outcomes

# With fewer records little is known: Wilson's interval of a share of one half is wider than 0.3.
FEW = 30
# With more labels (passages, a code book) a table of rates for each label would be too long.
MOST_LABELS = 30


@dataclass(frozen=True)
class GroupScores:
    """The figures of one group of records.

    Attributes:
        name: The group's name.
        records: Number of its records.
        score: The task's score.
        calibration: Expected calibration error, for tasks with one label per text; otherwise None.
        mean_score: For scoring, the mean predicted score; otherwise None.
        labels: The rates by label; empty for tasks without labels of texts.
        against: The other model's score minus this one's, paired over records; None: no other.
    """

    name: str
    records: int
    score: Interval | None
    calibration: Interval | None
    mean_score: Interval | None
    labels: Mapping[str, LabelRates]
    against: Interval | None = None


@dataclass(frozen=True)
class BiasFound:
    """The figures of a model for all groups, and their differences.

    Attributes:
        whole: The score on all records.
        groups: The groups' figures, in the groups' order.
        gap: The best group's score minus the worst's.
        chance: Share of random groupings with such a gap.
        labels: The differences between groups, for each label.
        against: The other model's score on all records minus this one's; None: no other.
    """

    whole: Interval | None
    groups: tuple[GroupScores, ...]
    gap: float
    chance: float
    labels: tuple[LabelGap, ...]
    against: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns all figures as a JSON object."""
        return asdict(self)


def measure_groups(
    model: Model, records: Sequence[Record], groups: Groups, seed: int, other: Model | None
) -> BiasFound:
    """Measures a model by group.

    Args:
        model: The finished model.
        records: Public records.
        groups: The groups of these records.
        seed: The seed of the intervals and of the permutation test.
        other: Another model of the same task and labels; None: none.

    Raises:
        UsageError: The other model has another task or other labels.
    """
    if other is not None and (_described(other) != _described(model)):
        raise UsageError(
            f"--against: a model for {' '.join(_described(other))} given; one for "
            f"{' '.join(_described(model))} is needed, so that both answer the same question"
        )
    found = outcomes(model, records)
    beside = None if other is None else outcomes(other, records).parts
    metric = METRICS[model.workspace.task.kind]
    each = tuple(
        _group(model, records, found, name, rows, seed, beside)
        for name, rows in zip(groups.names, groups.members, strict=True)
    )
    rng = np.random.default_rng(seed)
    labels = [name for name in model.labels if name in each[0].labels]
    return BiasFound(
        whole=score(metric, found.parts, seed),
        groups=each,
        gap=score_gap(found.parts, groups.members),
        chance=chance_of_gap(found.parts, groups.members, rng),
        labels=tuple(label_gap(name, [one.labels[name] for one in each]) for name in labels),
        against=None if beside is None else _less(found.parts, beside, seed),
    )


def _described(model: Model) -> tuple[str, ...]:
    return (model.workspace.task.kind, *model.labels)


def _less(parts: np.ndarray, other: np.ndarray, seed: int) -> Interval | None:
    return difference(np.stack([parts, other]), np.random.default_rng(seed))


def _group(
    model: Model,
    records: Sequence[Record],
    found: Outcomes,
    name: str,
    rows: np.ndarray,
    seed: int,
    beside: np.ndarray | None,
) -> GroupScores:
    places: list[int] = np.flatnonzero(rows).tolist()
    parts = found.parts[:, places]
    own = [records[place] for place in places]
    predictions = [found.predictions[place] for place in places] if found.predictions else []
    sure = [max(one.probabilities.values()) for one in predictions if isinstance(one, Classified)]
    scores = [one.score for one in predictions if isinstance(one, Scored)]
    rates = {}
    if len(model.labels) <= MOST_LABELS:
        for label in model.labels:
            got = [label in _labels(one) for one in predictions if _has_labels(one)]
            true = [
                label in _true(one) for one in own if isinstance(one, TextRecord | LabelsRecord)
            ]
            if got:
                rates[label] = label_rates(np.array(got), np.array(true))
    rng = np.random.default_rng(seed)
    return GroupScores(
        name=name,
        records=len(places),
        score=score(METRICS[model.workspace.task.kind], parts, seed),
        calibration=calibration(np.array(sure), parts[0], rng) if sure else None,
        mean_score=mean(np.array(scores), rng) if scores else None,
        labels=rates,
        against=None if beside is None else _less(parts, beside[:, places], seed),
    )


def _has_labels(prediction: object) -> bool:
    return isinstance(prediction, Classified | Labelled)


def _labels(prediction: object) -> tuple[str, ...]:
    if isinstance(prediction, Classified):
        return (prediction.label,)
    return prediction.labels if isinstance(prediction, Labelled) else ()


def _true(record: TextRecord | LabelsRecord) -> tuple[str, ...]:
    return (record.label,) if isinstance(record, TextRecord) else record.labels
