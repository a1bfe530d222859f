"""The frozen base's vectors of a data set's texts, computed once and kept in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.bare_text import encode_bare
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import open_workspace

# Texts of a pass; the base's rows do not depend on one another, but padding costs time.
ROWS = 64


class Features(NamedTuple):
    """Vectors [n, H] of norm √H and labels [n] of a data set's two parts."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


def features(data: Path, name: str, cache: Path, base: str, layers: int | None) -> Features:
    """Returns a data set's vectors, from the cache if they are there.

    Args:
        data: The folder with a folder of each data set, with `train.jsonl` and `test.jsonl`.
        name: The data set's.
        cache: A folder for the vectors.
        base: A hub id or folder.
        layers: As `model.layers`.
    """
    file = cache / f"{name}.{base.replace('/', '+')}.{layers or 'all'}.npz"
    if not file.exists():
        rows = {part: _rows(data / name / f"{part}.jsonl") for part in ("train", "test")}
        labels = sorted({label for _, label in rows["train"]})
        found = {}
        for part, texts in rows.items():
            found[part] = _vectors([text for text, _ in texts], labels, base, layers)
            found[f"{part}_labels"] = np.array([labels.index(label) for _, label in texts])
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **found)  # type: ignore[arg-type]
    kept = np.load(file)
    return Features(kept["train"], kept["train_labels"], kept["test"], kept["test_labels"])


def _rows(path: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["text"], str(row["label"])) for row in rows]


def _vectors(
    texts: list[str], labels: list[str], base: str, layers: int | None
) -> NDArray[np.float32]:
    """Vectors [n, H], scaled to norm √H, in the texts' order."""
    model, lora = ModelConfig(base=base, layers=layers), LoraConfig(train="none")
    workspace = open_workspace(model, lora, TaskConfig(max_length=64), tuple(labels), 0)
    network, task = workspace.network, workspace.task
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
    with torch.no_grad():
        for first in range(0, len(order), ROWS):
            part = order[first : first + ROWS]
            rows = network.pooled(task.collate([encode_bare(task, texts[at]) for at in part]))
            for at, row in zip(part, rows.numpy(), strict=True):
                found[at] = row * (np.sqrt(len(row)) / np.linalg.norm(row))
    return np.stack(found).astype(np.float32)
