"""A frozen base's vectors of texts, computed once and kept in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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


class Reading(NamedTuple):
    """A base and how it reads a text; the fields as in the recipe's `[model]` and `[task]`."""

    base: str
    layers: int | None = None
    prompt: str | None = None


def features(data: Path, name: str, cache: Path, base: str, layers: int | None) -> Features:
    """Returns a data set's vectors, from the cache if they are there.

    Args:
        data: The folder with a folder of each data set, with `train.jsonl` and `test.jsonl`.
        name: The data set's.
        cache: A folder for the vectors.
        base: A hub id or folder.
        layers: As `model.layers`.
    """
    parts = {part: labelled(data / name / f"{part}.jsonl") for part in ("train", "test")}
    classes = sorted({label for _, label in parts["train"]})
    found = {}
    for part, rows in parts.items():
        found[part] = vectors([text for text, _ in rows], Reading(base, layers), cache)
        found[f"{part}_labels"] = np.array([classes.index(label) for _, label in rows])
    return Features(**found)


def labelled(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of a file of JSON lines."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["text"], str(row["label"])) for row in rows]


def vectors(texts: Sequence[str], reading: Reading, cache: Path) -> NDArray[np.float32]:
    """Returns vectors [n, H], scaled to norm √H, in the texts' order.

    Args:
        texts: Not empty.
        reading: By what they are read.
        cache: A folder for the vectors. A file's name says base and layers, and has a hash of
            prompt and texts, so other texts never get its vectors.
    """
    content = json.dumps([reading.prompt, list(texts)]).encode()
    base = reading.base.strip("/").replace("/", "+")
    file = f"{base}.{reading.layers or 'all'}.{hashlib.sha256(content).hexdigest()[:16]}.npy"
    path = cache / file
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".part.npy")  # a file of that name alone is whole
        np.save(whole, _computed(texts, reading))
        whole.replace(path)
    kept: NDArray[np.float32] = np.load(path)
    return kept


def _computed(texts: Sequence[str], reading: Reading) -> NDArray[np.float32]:
    model, lora = ModelConfig(base=reading.base, layers=reading.layers), LoraConfig(train="none")
    shape = TaskConfig(max_length=64, prompt=reading.prompt)
    workspace = open_workspace(model, lora, shape, ("0", "1"), 0)
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
