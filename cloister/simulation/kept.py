"""Caches what a process of a simulation makes from a recipe, until a file of the recipe changes.

Flower calls a site's function once per message, in a process that it chooses, with only a context;
loading base and records each time would take most of the study's time. So results are cached by the
recipe and the stamp of every file that it names: an edited or replaced file gives another key. A
source on the hub is cached by its id, like the hub's own cache in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from cloister.files import Stamp, bad_file, stamp_of
from cloister.recipe import Recipe

Made = TypeVar("Made")


def by_content(most: int) -> Callable[[Callable[[Recipe], Made]], Callable[[Recipe], Made]]:
    """Decorates a function of a recipe so that its last results are cached.

    Args:
        most: Number of cached results.
    """

    def decorated(function: Callable[[Recipe], Made]) -> Callable[[Recipe], Made]:
        @lru_cache(maxsize=most)
        def kept(recipe: Recipe, stamps: tuple[Stamp, ...]) -> Made:
            return function(recipe)

        @wraps(function)
        def call(recipe: Recipe) -> Made:
            return kept(recipe, stamps_of(recipe))

        return call

    return decorated


def stamps_of(recipe: Recipe) -> tuple[Stamp, ...]:
    """Returns stamps of the files on this machine that a recipe names: records, items and base.

    Raises:
        BadFileError: A file exists but cannot be read, or its name is not valid.
    """
    try:
        return _stamps_of(recipe)
    except (OSError, ValueError) as error:
        raise bad_file(error) from error


def _stamps_of(recipe: Recipe) -> tuple[Stamp, ...]:
    data = recipe.data
    sources = (data.train, data.test, data.validation, data.public, recipe.task.items)
    named = [Path(source).expanduser() for source in sources if source]
    base = Path(recipe.model.base).expanduser()
    inside = sorted(base.iterdir()) if base.is_dir() else [base]
    return tuple(stamp_of(path) for path in (*named, *inside) if path.is_file())
