"""What a process of a simulation keeps between messages: by the content of what it was made from.

Flower calls a site's function once a message, in a process that it chooses, with nothing but a
context; loading base and records anew each time would take most of the study. So what a recipe
gives is kept, under the recipe and the stamp of every file that it names: an edited file, or
another file in its place, is another key. A source on the hub is kept by its id, as the hub's own
cache in this process is.
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
    """Keeps the last results of a function of a recipe, until a file that the recipe names changes.

    Args:
        most: Results.
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
    """Stamps of the files on this machine that a recipe names: its records, its items and its base.

    Raises:
        BadFileError: A file is there and cannot be read, or has a name that none can have.
    """
    try:
        return _stamps_of(recipe)
    except (OSError, ValueError) as error:
        raise bad_file(error) from error


def _stamps_of(recipe: Recipe) -> tuple[Stamp, ...]:
    data = recipe.data
    sources = (data.train, data.test, data.validation, recipe.task.items)
    named = [Path(source).expanduser() for source in sources if source]
    base = Path(recipe.model.base).expanduser()
    inside = sorted(base.iterdir()) if base.is_dir() else [base]
    return tuple(stamp_of(path) for path in (*named, *inside) if path.is_file())
