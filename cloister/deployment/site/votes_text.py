"""Describes the votes of a study to an institution's operator."""

from __future__ import annotations

from typing import Any

from cloister.client.terms import StudyTerms


def votes_of(terms: StudyTerms) -> dict[str, Any]:
    """Describes the votes of a study for JSON: on what, with which noise, and what comes of it."""
    votes, plan = terms.recipe.votes, terms.plan
    return {
        "candidates": plan.votes,
        "noise_multiplier": plan.noise_multiplier,
        "public": None if votes is None else votes.public,
        "generator": None if votes is None else votes.generator,
    }


def votes_in_words(facts: dict[str, Any]) -> str:
    """Describes the votes in words."""
    told, unit = facts["votes"], "person" if facts["unit"] == "person" else "record"
    how = "with noise multiplier"
    if "shares_noise" in facts:
        how = "under a mask; in the sum over sites they have noise multiplier"
    varied = f", varied by {told['generator']}" if told["generator"] else ""
    return (
        f"nothing is trained: in each round every {unit} has one vote, for the nearest of "
        f"{told['candidates']:,} public candidate texts of its label; the {told['candidates']:,} "
        f"counts leave {how} {told['noise_multiplier']:.4g} in each. The texts are those of "
        f"{told['public']} at the coordinator{varied}; those that win are published"
    )
