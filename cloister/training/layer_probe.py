"""Scores a classifier on each layer of a base, on public records.

Each layer's vector is the head's input in a study with `model.layers` at that layer: with the
base's final norm, the study's pooling and the study's prompt. One pass gives all layers.

Shapes: B records, T tokens, H hidden units.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_score

from cloister.data.records import TextRecord
from cloister.errors import DataError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.training.batches import physical_batches
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace

# Most records that are read: a probe's accuracy is then known to about one point (its standard
# error at 0.8 is √(0.8 · 0.2 / 2000) = 0.009).
MOST_RECORDS = 2000
FOLDS = 5
# Ridge penalties, per feature of length near 1; each fold chooses one by leave-one-out.
PENALTIES = tuple(10.0**power for power in range(0, 6))
# GiB for the trial when a base is opened; nothing is kept afterwards.
_ROOM_GIB = 0.1


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """The score of a probe of one layer.

    Attributes:
        layers: Number of layers after which the base ends.
        accuracy: Mean over the folds.
        deviation: Sample standard deviation over the folds.
    """

    layers: int
    accuracy: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """The scores of the probes of all layers.

    Attributes:
        scores: From the first layer to the last.
        records: Number of records that were read.
        pooling: Description of how a text becomes one vector.
        majority: Accuracy of guessing the most frequent label.
    """

    scores: tuple[LayerScore, ...]
    records: int
    pooling: str
    majority: float


def probe_layers(
    model: ModelConfig,
    task: TaskConfig,
    records: Sequence[TextRecord],
    max_tokens: int,
    on_batch: Callable[[int, int], None] = lambda done, of: None,
    *,
    device: str | None = None,
) -> LayerScores:
    """Scores a linear probe of each layer by cross-validation.

    Args:
        model: The `[model]` section; its `layers` is ignored.
        task: The `[task]` section; its labels are those of the records.
        records: Public records; of more than `MOST_RECORDS` a random part is read, the same each
            time.
        max_tokens: Padded tokens of a batch.
        on_batch: Called with the number of records read so far, and of all.
        device: `machine.device`; None: the GPU if there is one.

    Raises:
        DataError: A label has fewer than `FOLDS` records.
        UsageError: The base's layers are not one list that can end earlier.
        ModelFileError: The base cannot be found or loaded.
    """
    chosen = list(records)
    if len(chosen) > MOST_RECORDS:
        chosen = random.Random(0).sample(chosen, MOST_RECORDS)  # the same for every prompt and base
    counts = Counter(record.label for record in chosen)
    rarest = min(counts, key=lambda label: counts[label])
    if len(counts) < 2 or counts[rarest] < FOLDS:
        raise DataError(
            f"--layers: {counts[rarest]} of {len(chosen)} records read have the label "
            f"{rarest!r}; at least 2 labels with {FOLDS} records each are needed"
        )
    labels = tuple(sorted(counts))
    workspace = open_workspace(
        replace(model, layers=None),
        LoraConfig(train="none"),
        replace(task, labels=labels),
        labels,
        0,
        frozen_cache_gib=_ROOM_GIB,
        device=device,
    )
    features = _features(workspace, chosen, max_tokens, on_batch)
    classes = np.array([labels.index(record.label) for record in chosen])
    return LayerScores(
        scores=tuple(_score(number, rows, classes) for number, rows in enumerate(features, 1)),
        records=len(chosen),
        pooling=str(workspace.network.pooling),
        majority=max(counts.values()) / len(chosen),
    )


def _features(
    workspace: Workspace,
    records: Sequence[TextRecord],
    max_tokens: int,
    on_batch: Callable[[int, int], None],
) -> list[NDArray[np.float64]]:
    """Vectors of all records by layer, each [records, H], scaled to length √H."""
    network, prefix = workspace.network, workspace.network.prefix
    if prefix is None or network.pooling is None:
        raise UsageError(
            "--layers: this base's layers are not one list that can end earlier; leave "
            "model.layers out, or choose another base"
        )
    examples = workspace.encode(records)
    place = {id(example): number for number, example in enumerate(examples)}
    found: list[list[Any]] = []
    done = 0
    with torch.no_grad():
        for group in physical_batches(singles(examples), max_tokens):
            batch = workspace.task.collate([example for (example,) in group])
            inputs = network.inputs(batch)
            states = prefix.each_layer(inputs)
            found = found or [[None] * len(examples) for _ in states]
            for layer, hidden in enumerate(states):
                with prefix.skipping(hidden):
                    output = network.backbone(**inputs)
                mask = inputs["attention_mask"]
                pooled = F.normalize(network.pooling(output, mask).float(), dim=1)
                scaled = (pooled * pooled.shape[1] ** 0.5).cpu().numpy()
                for (example,), row in zip(group, scaled, strict=True):
                    found[layer][place[id(example)]] = row
            done += len(group)
            on_batch(done, len(examples))
    return [np.array(rows, dtype=np.float64) for rows in found]


def _score(layers: int, rows: NDArray[np.float64], classes: NDArray[np.int64]) -> LayerScore:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_score(RidgeClassifierCV(alphas=PENALTIES), rows, classes, cv=folds)
    return LayerScore(
        layers=layers, accuracy=float(scores.mean()), deviation=float(scores.std(ddof=1))
    )
