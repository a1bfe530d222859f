"""The hash of a study's public items, stated so that it is in the study's digest."""

from __future__ import annotations

from dataclasses import replace

from cloister.data.catalogue import KEY, catalogue_sha256
from cloister.data.public_file import check_sha256
from cloister.tasks.config import TaskConfig


def with_items_sha256(task: TaskConfig) -> TaskConfig:
    """The task with its items' hash; another task as it is.

    Args:
        task: Of a recipe, whose file is on this machine.

    Raises:
        DataError: The file is not here, or is another than the recipe states.
    """
    if task.items is None:
        return task
    found = catalogue_sha256(task.items)
    check_sha256(found, task.items_sha256, task.items, KEY)
    return replace(task, items_sha256=found)
