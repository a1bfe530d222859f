"""What `cloister plan` says of a study of votes besides its ε: the noise in the counts."""

from __future__ import annotations

from typing import Any

from cloister.privacy.plan import Plan
from cloister.privacy.votes import most_candidates
from cloister.recipe import Recipe
from cloister.recipe.vote_study import VoteStudy, noise_of_a_count


def vote_facts(study: Recipe, made: Plan) -> dict[str, Any]:
    """Returns JSON values about the counts of a study of votes.

    Args:
        study: It has `[votes]`.
        made: The plan of the site, or of each of the equal sites, that is described.

    Returns:
        `candidates` and `rounds`; `noise_at_site`, the standard deviation of the noise that such a
        site adds to each count; over all sites, in votes, `noise_over_sites` in a count,
        `mean_count`, and the `most_candidates` whose mean count is not below that noise.

    Raises:
        UsageError: The candidates are more than the votes and their noise can tell apart.
        BudgetError: A site's lifetime budget does not cover all rounds.
    """
    plans = VoteStudy(study).plans(study.data.site_names)
    units = sum(plan.public_records for plan in plans.values())
    noise = noise_of_a_count(plans)
    return {
        "candidates": made.votes,
        "rounds": made.num_rounds,
        "noise_at_site": noise_of_a_count({"": made}),
        "noise_over_sites": noise,
        "mean_count": units / (made.votes or 1),
        "most_candidates": most_candidates(units, noise),
    }


def vote_words(facts: dict[str, Any], unit: str) -> list[str]:
    """Returns the lines that say it.

    Args:
        facts: From `vote_facts`.
        unit: What has one vote: a record or a person.
    """
    rounds = "once" if facts["rounds"] == 1 else f"in each of {facts['rounds']} rounds"
    return [
        f"nothing is trained: every {unit} votes for one of {facts['candidates']:,} candidates "
        f"{rounds}; a site adds noise of standard deviation {facts['noise_at_site']:.3g} to "
        "every count",
        f"over all sites a candidate gets {facts['mean_count']:.3g} votes on average, with noise "
        f"of {facts['noise_over_sites']:.3g}; at most {facts['most_candidates']:,} candidates can "
        "be told apart",
    ]
