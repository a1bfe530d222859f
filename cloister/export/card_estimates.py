"""Writes a card's section on scores that were estimated on records which no site trained on."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.privacy.estimated_scores import EvaluatedRound, shown_estimate
from cloister.privacy.noised_ratio import LEVEL


def estimates_section(evaluations: Sequence[EvaluatedRound], rounds: int) -> list[str]:
    """Returns the section as a list of one text; empty if there was no private evaluation.

    Args:
        evaluations: The private evaluations, oldest first.
        rounds: Rounds closed.
    """
    if not evaluations:
        return []
    last = evaluations[-1]
    lines = [
        "## Scores on the sites' held-out records\n",
        f"After round {last.round} of {rounds} the sites scored the adapter on records that they "
        f"held out of training, and released noised sums ({last.sites} answered). Intervals are at "
        f"{100 * LEVEL:g} % and include the noise; each holds by itself, not all together.\n",
        "| | estimate | held-out units of these sites | their population |",
        "|---|---|---|---|",
    ]
    for name, found in last.scores.items():
        both = (found.held_out, found.population)
        cells = " | ".join("" if ends is None else _interval(ends) for ends in both)
        lines.append(f"| {name} | {shown_estimate(found.value)} | {cells} |")
    if len(evaluations) > 1:
        name, _ = last.primary
        earlier = ", ".join(
            f"{shown_estimate(one.scores[name].value)} ({_interval(one.scores[name].widest)}) "
            f"after round {one.round}"
            for one in evaluations[:-1]
            if name in one.scores
        )
        lines.append(f"\nEarlier, {name} was estimated at {earlier}.")
    return ["\n".join(lines) + "\n"]


def _interval(ends: tuple[float, float]) -> str:
    return " to ".join(map(shown_estimate, ends))
