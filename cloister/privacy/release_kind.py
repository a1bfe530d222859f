"""What a release is about: units that are trained on, held-out units, or units that vote."""

from __future__ import annotations

from enum import StrEnum


class ReleaseKind(StrEnum):
    """The kinds of releases that a plan may list; each is charged as a kind of its own."""

    TRAINING = "training"  # a step on a Poisson batch of the units that are trained on
    EVALUATION = "evaluation"  # the scores of the held-out units, all of them
    VOTE = "vote"  # the votes of all units for the candidate texts of a round
