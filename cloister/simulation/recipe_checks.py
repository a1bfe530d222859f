"""Finds what no simulation can run from the recipe alone, before its data or base are looked for.

`cloister plan` and `cloister simulate` both refuse by it. These are no rules of recipes
(`recipe.rules`): a recipe for deployed sites, which deal no records and declare their own held-out
share, may break the first three.
"""

from __future__ import annotations

from cloister.data.records import ONE_LABEL
from cloister.errors import CloisterError, RefusedError, UsageError
from cloister.recipe import Recipe
from cloister.simulation.partition import NO_LABELS, NO_PERSON


def simulation_problem(recipe: Recipe) -> CloisterError | None:
    """Returns the error that refuses a recipe in a simulation; None: its fields fit together."""
    data, privacy, lora = recipe.data, recipe.privacy, recipe.lora
    if privacy.evaluations is not None and data.held_out_share is None:
        return UsageError(
            "data.held_out_share: missing, and privacy.evaluation_rounds needs units that no site "
            "trains on; set it, such as 0.1"
        )
    if data.partition == "person" and data.person is None:
        return UsageError(NO_PERSON)
    if data.partition == "dirichlet" and recipe.task.records not in ONE_LABEL:
        return UsageError(NO_LABELS)
    if privacy.enabled and lora.use_dora and lora.train == "both":
        return RefusedError(
            "lora.use_dora: true given with privacy, but a DoRA magnitude has no exact gradient of "
            "a single record: it divides by the length of W + B·A; set lora.use_dora = false, or "
            "train without privacy"
        )
    return None


def check_recipe(recipe: Recipe) -> None:
    """Refuses a recipe that no simulation can run, whatever its records and base are.

    Raises:
        UsageError, RefusedError: Its fields contradict each other.
    """
    problem = simulation_problem(recipe)
    if problem is not None:
        raise problem
