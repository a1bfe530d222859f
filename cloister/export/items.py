"""The public items of a recommender in its adapter's folder: ids and texts, and their vectors.

The copy is JSONL whatever the study's file was, so that a script reads it; its hash is its own, and
the study's is in the run's `recipe.toml`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cloister.errors import BadFileError
from cloister.models.item_vectors import ItemVectors
from cloister.tasks.config import TaskConfig
from cloister.tasks.recommendation import Recommendation
from cloister.training.workspace import Workspace

ITEMS, VECTORS = "items.jsonl", "items.safetensors"


def save_items(folder: Path, workspace: Workspace, task: TaskConfig) -> TaskConfig:
    """Writes items and vectors.

    Args:
        folder: The adapter's.
        workspace: Of a recommender.
        task: As the study names its items.

    Returns:
        The task with the name of the copy in the folder, and its hash.
    """
    bound, vectors = workspace.task, workspace.network.items
    assert isinstance(bound, Recommendation)
    assert vectors is not None
    lines = bound.catalogue.to_jsonl().encode()
    (folder / ITEMS).write_bytes(lines)
    save_file({"vectors": vectors.detach().cpu().contiguous()}, folder / VECTORS)
    return replace(task, items=ITEMS, items_sha256=hashlib.sha256(lines).hexdigest())


def placed_items(folder: Path, task: TaskConfig) -> TaskConfig:
    """The task with the path of the folder's own items, which `save_items` wrote.

    Raises:
        BadFileError: The task names a file elsewhere.
    """
    if task.items is None:
        return task
    if Path(task.items).name != task.items:
        raise BadFileError(
            f"{folder}: cloister.json: task.items: {task.items} is no name of a file"
        )
    return replace(task, items=str(folder / task.items))


def load_items(folder: Path, task: TaskConfig) -> ItemVectors | None:
    """The vectors that `save_items` wrote; None of another task. The head holds the centre.

    Raises:
        BadFileError: They are missing or damaged.
    """
    if task.items is None:
        return None
    try:
        return ItemVectors(load_file(folder / VECTORS)["vectors"], None)
    except (OSError, KeyError, SafetensorError) as error:
        raise BadFileError(f"{folder}: {VECTORS} is missing or damaged: {error}") from error
