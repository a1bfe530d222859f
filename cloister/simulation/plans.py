"""Computes each site's plan from a recipe's declared constants: no record, base or torch."""

from __future__ import annotations

from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.recipe.plan_of import plan_of


def plans_of(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Plan]:
    """Returns each site's plan, from declared constants alone.

    Raises:
        RefusedError: No noise meets the target.
    """
    declared = recipe.data.public_records
    by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
    solved = {records: plan_of(recipe, records) for records in set(by_site)}
    return {name: solved[records] for name, records in zip(names, by_site, strict=True)}
