"""A recipe's plans before there is any data: all of it follows from declared constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cloister.errors import CloisterError, DataError
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.simulation.early import refuse_early
from cloister.simulation.plans import plans_of


def plans_by_size(recipe: Recipe) -> Iterator[tuple[Plan, int]]:
    """Each different plan, and how many sites have it.

    Raises:
        RefusedError: No noise meets the target.
    """
    names = tuple(f"site {number}" for number in range(recipe.data.sites))
    yield from Counter(plans_of(recipe, names).values()).items()


def trained_parameters(recipe: Recipe) -> int | None:
    """Noised parameters of the study's largest message; None where they cannot be counted here."""
    try:
        return _count(recipe)
    except CloisterError:
        return None


def why_uncounted(recipe: Recipe) -> str | None:
    """Why the noised parameters cannot be counted, as a warning; None where they can be."""
    try:
        _count(recipe)
    except CloisterError as error:
        return (
            f"the noised parameters are not counted, so nothing is said of noise over signal: "
            f"{error}"
        )
    return None


def _count(recipe: Recipe) -> int:
    """Counts them: labels come from the recipe, else from the public data; shapes from the base.

    Raises:
        CloisterError: Data or base are not here, or the recipe names no data.
    """
    is_known = bool(recipe.task.labels) or recipe.task.kind == "causal-lm"
    if recipe.has_stand_in and not is_known:
        raise DataError(
            "data.train: none given; give --set data.train=… and --set data.test=…, or name the "
            "classes in task.labels"
        )
    if not is_known:
        refuse_early(recipe)
    from cloister.simulation.study import SimulatedStudy, prepare, workspace_of

    study = SimulatedStudy(recipe, {}, [], [], {}) if is_known else prepare(recipe)
    return workspace_of(study).start.size
