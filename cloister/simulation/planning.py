"""Computes a recipe's plans without any data, from declared constants alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cloister.errors import CloisterError, DataError
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.simulation.early import refuse_early
from cloister.simulation.plans import plans_of


def plans_by_size(recipe: Recipe) -> Iterator[tuple[Plan, int]]:
    """Yields each different plan, with the number of sites that have it.

    Raises:
        RefusedError: No noise meets the target.
    """
    yield from Counter(plans_of(recipe, recipe.data.site_names).values()).items()


def noised_parameters(recipe: Recipe) -> tuple[int | None, str | None]:
    """Counts the parameters that get noise; reads public data and base, which takes time.

    Returns:
        The number of parameters of the study's largest message, and None; or, if they cannot be
        counted on this machine, None and the reason as a warning.
    """
    try:
        return _count(recipe), None
    except CloisterError as error:
        return None, (
            "the plan is valid, but it cannot compare noise and gradients, which needs the "
            f"data and the base on this machine: {error}"
        )


def _count(recipe: Recipe) -> int:
    """Counts the noised parameters.

    Labels are those of the recipe, else of the public data; shapes are those of the base.

    Raises:
        CloisterError: Data or base are not on this machine, or the recipe names no data.
    """
    is_known = bool(recipe.task.labels) or recipe.task.records in ("messages", "score", "items")
    if recipe.has_stand_in and not is_known:
        raise DataError(
            "data.train: missing; give --set data.train=… and --set data.test=…, or list the "
            "classes in task.labels"
        )
    if not is_known:
        refuse_early(recipe)
    from cloister.simulation.study import SimulatedStudy, prepare, workspace_of

    study = SimulatedStudy(recipe, {}, [], [], {}) if is_known else prepare(recipe)
    return workspace_of(study).start.size
