"""Writes the hash of a study's public items into its recipe, so that its digest covers them."""

from __future__ import annotations

from dataclasses import replace

from cloister.data.catalogue import KEY, catalogue_sha256
from cloister.data.public_file import check_sha256
from cloister.tasks.config import TaskConfig


def with_items_sha256(task: TaskConfig) -> TaskConfig:
    """Returns the `[task]` section with the hash of its items; unchanged for another task.

    Args:
        task: The section of a recipe whose file of items is on this machine.

    Raises:
        DataError: The file is missing, or has another hash than the recipe states.
    """
    if task.items is None:
        return task
    found = catalogue_sha256(task.items)
    check_sha256(found, task.items_sha256, task.items, KEY)
    return replace(task, items_sha256=found)
