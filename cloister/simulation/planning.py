"""A recipe's plans before there is any data: all of it follows from declared constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cloister.errors import CloisterError
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.simulation.study import plans_of, prepare, workspace_of


def plans_by_size(recipe: Recipe) -> Iterator[tuple[Plan, int]]:
    """Each different plan, and how many sites have it.

    Raises:
        RefusedError: No noise meets the target.
    """
    names = tuple(f"site {number}" for number in range(recipe.data.sites))
    yield from Counter(plans_of(recipe, names).values()).items()


def trained_parameters(recipe: Recipe) -> int | None:
    """Noised parameters of the study's largest message; None where data or base are not here."""
    try:
        return workspace_of(prepare(recipe)).start.size
    except CloisterError:
        return None
