"""Computes each site's plan from a recipe's declared constants: no record, base or torch."""

from __future__ import annotations

from cloister.privacy.plan import Plan, make_plan
from cloister.recipe import Recipe


def plans_of(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Plan]:
    """Returns each site's plan, from declared constants alone.

    Raises:
        RefusedError: No noise meets the target.
    """
    declared = recipe.data.public_records
    by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
    solved = {
        records: make_plan(
            recipe.privacy,
            public_records=records,
            expected_batch_size=recipe.training.expected_batch_size,
            local_steps=recipe.training.local_steps,
            num_rounds=recipe.federation.num_rounds,
            sites=recipe.data.sites,
        )
        for records in set(by_site)
    }
    return {name: solved[records] for name, records in zip(names, by_site, strict=True)}
