"""The plan of a study at a site, from the recipe and the site's declared size alone.

Coordinator, site and simulation all ask here, so that they mean one plan.
"""

from __future__ import annotations

from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.vote_plan import vote_plan
from cloister.recipe.schema import Recipe


def plan_of(recipe: Recipe, public_records: int) -> Plan:
    """Solves for the noise and returns a site's plan.

    Args:
        recipe: The study: one that trains, or one of votes.
        public_records: The site's declared, public number of units.

    Raises:
        RefusedError: No amount of noise meets the target, or too few sites share it.
        UsageError: The batch is larger than the site, or votes cannot have what is asked.
    """
    if recipe.votes is not None:
        return vote_plan(
            recipe.privacy,
            public_records=public_records,
            candidates=recipe.votes.candidates,
            rounds=recipe.votes.rounds,
            sites=recipe.data.sites,
        )
    return make_plan(
        recipe.privacy,
        public_records=public_records,
        expected_batch_size=recipe.training.expected_batch_size,
        local_steps=recipe.training.local_steps,
        num_rounds=recipe.federation.num_rounds,
        sites=recipe.data.sites,
    )
