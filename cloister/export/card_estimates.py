"""Writes a card's section on scores that were estimated on records which no site trained on."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.privacy.estimated_scores import EvaluatedRound, SelectedRound, shown_estimate
from cloister.privacy.noised_ratio import LEVEL


def estimates_section(
    evaluations: Sequence[EvaluatedRound], rounds: int, selected: SelectedRound | None = None
) -> list[str]:
    """Returns the section as a list of one text; empty if there was no private evaluation.

    Args:
        evaluations: The private evaluations, oldest first.
        rounds: Rounds closed.
        selected: The round whose adapter is released by its score; None: the last.
    """
    if not evaluations:
        return []
    chosen = [one for one in evaluations if selected is not None and one.round == selected.round]
    last = (chosen or evaluations)[-1]
    released = rounds if selected is None else selected.round
    lines = [
        "## Scores on the sites' held-out records\n",
        f"After round {last.round} of {rounds} the sites scored the adapter on records that they "
        f"held out of training, and released noised sums ({last.sites} answered). Intervals are at "
        f"{100 * LEVEL:g} % and include the noise; each holds by itself, not all together.\n",
        *([] if last.round == released else [_of_another(last.round, released)]),
        "| | estimate | held-out units of these sites | their population |",
        "|---|---|---|---|",
    ]
    for name, found in last.scores.items():
        both = (found.held_out, found.population)
        cells = " | ".join("" if ends is None else _interval(ends) for ends in both)
        lines.append(f"| {name} | {shown_estimate(found.value)} | {cells} |")
    name, _ = last.primary
    others = ", ".join(
        f"{shown_estimate(one.scores[name].value)} ({_interval(one.scores[name].widest)}) after "
        f"round {one.round}"
        for one in evaluations
        if one.round != last.round and name in one.scores
    )
    if others:
        lines.append(f"\nOther estimates of {name}: {others}.")
    return ["\n".join(lines) + "\n"]


def _of_another(scored: int, released: int) -> str:
    """Says that the estimates are of another round's adapter than the one in this folder."""
    return (
        f"**The adapter here is that of round {released}, which the sites did not score: these "
        f"scores are those of round {scored}.**\n"
    )


def _interval(ends: tuple[float, float]) -> str:
    return " to ".join(map(shown_estimate, ends))
