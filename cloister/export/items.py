"""Saves and loads a recommender's public items in its adapter's folder: ids, texts and vectors.

The copy is always JSONL, so that a script can read it. Its hash differs from the hash of the
study's own file, which is in the run's `recipe.toml`.
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
        folder: The adapter's folder.
        workspace: The workspace of a recommender.
        task: The study's `[task]` section, which names the items' file.

    Returns:
        The section with the name and hash of the copy in the folder.
    """
    bound, vectors = workspace.task, workspace.network.items
    assert isinstance(bound, Recommendation)
    assert vectors is not None
    lines = bound.catalogue.to_jsonl().encode()
    (folder / ITEMS).write_bytes(lines)
    save_file({"vectors": vectors.detach().cpu().contiguous()}, folder / VECTORS)
    return replace(task, items=ITEMS, items_sha256=hashlib.sha256(lines).hexdigest())


def placed_items(folder: Path, task: TaskConfig) -> TaskConfig:
    """Returns the `[task]` section with the full path of the items that `save_items` wrote.

    Raises:
        BadFileError: The section names a file outside of the folder.
    """
    if task.items is None:
        return task
    if Path(task.items).name != task.items:
        raise BadFileError(
            f"{folder}: cloister.json: task.items: {task.items} given; needed is a file name "
            "without a path"
        )
    return replace(task, items=str(folder / task.items))


def load_items(folder: Path, task: TaskConfig) -> ItemVectors | None:
    """Returns the vectors that `save_items` wrote; None for another task.

    `model.center` is not subtracted from them: the head contains it.

    Raises:
        BadFileError: The vectors are missing or damaged.
    """
    if task.items is None:
        return None
    try:
        return ItemVectors(load_file(folder / VECTORS)["vectors"], None)
    except (OSError, KeyError, SafetensorError) as error:
        raise BadFileError(f"{folder}: {VECTORS} is missing or damaged: {error}") from error
