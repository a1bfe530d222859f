"""The estimates of a private evaluation, as a run's folder keeps them in a line of JSON.

Writes and reads single estimates, and says in words what one evaluation found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cloister.canonical import json_number
from cloister.privacy.noised_ratio import LEVEL, Estimate

Scores = Mapping[str, Estimate]  # by metric, the task's primary one first


@dataclass(frozen=True)
class EvaluatedRound:
    """The estimates of one private evaluation.

    Attributes:
        round: The round after which it was.
        sites: Number of sites that answered.
        scores: Scores by metric, the task's primary one first.
        classes: Scores by class and metric; empty for a task without classes.
    """

    round: int
    sites: int
    scores: Scores
    classes: Mapping[str, Scores]

    @property
    def primary(self) -> tuple[str, Estimate]:
        """The task's primary metric, and its estimate."""
        return next(iter(self.scores.items()))

    def __str__(self) -> str:
        name, found = self.primary
        low, high = found.widest
        return (
            f"{name} {shown_estimate(found.value)} ({100 * LEVEL:g} % for {found.covers}: "
            f"{shown_estimate(low)} to {shown_estimate(high)}; round {self.round}, {self.sites} "
            f"site{'' if self.sites == 1 else 's'})"
        )


SelectedBy = Literal["private_evaluations", "public_validation"]


@dataclass(frozen=True)
class SelectedRound:
    """The round whose adapter is delivered because its score is the best.

    Attributes:
        round: The round.
        metric: The metric that was compared.
        compared: Number of scores that were compared.
        by: Whose scores they were: estimates of private evaluations, or those on the public
            validation set.
    """

    round: int
    metric: str
    compared: int
    by: SelectedBy = "private_evaluations"

    def __str__(self) -> str:
        best = f"the adapter after round {self.round}, the best of {self.compared} by {self.metric}"
        if self.by == "private_evaluations":
            return (
                f"{best} in private evaluations. These are noisy, so the best of several is too "
                "good on average, and its intervals do not count the choice"
            )
        return (
            f"{best} on the public validation set. The best of several scores on one set is too "
            "good on average"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the selection as JSON values, with the caution in words."""
        return {
            "by": self.by,
            "round": self.round,
            "metric": self.metric,
            "compared": self.compared,
            "in_words": str(self),
        }


def evaluated_rounds(rows: Sequence[Mapping[str, Any]]) -> tuple[EvaluatedRound, ...]:
    """Reads the lines of `evaluations.jsonl`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: A line has other fields than
            `server.private_evaluation` writes.
    """
    return tuple(
        EvaluatedRound(
            round=int(row["round"]),
            sites=len(row["sites"]),
            scores=_scores(row["scores"]),
            classes={str(label): _scores(found) for label, found in row["classes"].items()},
        )
        for row in rows
    )


def delivered(
    rows: Sequence[Mapping[str, Any]], selected: SelectedRound | None
) -> EvaluatedRound | None:
    """Returns the estimates that belong to the adapter which a run delivers.

    Args:
        rows: The lines of `evaluations.jsonl`, oldest first.
        selected: The round whose adapter is delivered; None: the last one's.

    Returns:
        The evaluation after the selected round, else the last one; None: there is none.
    """
    found = evaluated_rounds(rows)
    if selected is not None:
        found = tuple(one for one in found if one.round == selected.round)
    return found[-1] if found else None


def to_json(found: Estimate) -> dict[str, Any]:
    """Returns an estimate as JSON values; ∞ is null."""
    return {
        "value": None if found.value is None else json_number(found.value),
        "held_out": [json_number(end) for end in found.held_out],
        "population": None
        if found.population is None
        else [json_number(end) for end in found.population],
    }


def shown_estimate(value: float | None) -> str:
    """Formats a score or an interval's end; a dash where the noise hides the score."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.4f}"


def _scores(found: Mapping[str, Any]) -> Scores:
    if not found:
        raise ValueError("an evaluation without scores")
    return {str(name): _estimate(one) for name, one in found.items()}


def _estimate(found: Mapping[str, Any]) -> Estimate:
    value, population = found["value"], found["population"]
    return Estimate(
        None if value is None else float(value),
        _interval(found["held_out"]),
        None if population is None else _interval(population),
    )


def _interval(ends: Sequence[float | None]) -> tuple[float, float]:
    """Reads an interval; null is ∞ at its upper end."""
    low, high = (math.inf if end is None else float(end) for end in ends)
    return low, high
