"""Proposes a scale of scores from a file's: a usual one, as a file's own extremes are private."""

from __future__ import annotations

import math

from cloister.data.score_extent import ScoreExtent
from cloister.tasks.score_scale import ScoreScale

# Scales in use: shares, polarity, stars and Likert items, STS, Swiss and German marks, ratings out
# of ten, French marks, percents and points.
USUAL = (
    (0, 1),
    (-1, 1),
    (1, 5),
    (0, 5),
    (0, 6),
    (1, 6),
    (1, 7),
    (1, 10),
    (0, 10),
    (0, 20),
    (0, 100),
)


def usual_scale(extent: ScoreExtent) -> ScoreScale:
    """Returns the narrowest usual scale that has all scores, with their step if it has one.

    Beyond all of them it ends at a power of ten, and begins at 0 or at the same below it.
    """
    fitting = [ends for ends in USUAL if ends[0] <= extent.low and extent.high <= ends[1]]
    if fitting:
        low, high = min(fitting, key=lambda ends: ends[1] - ends[0])
    else:
        high = 10 ** math.ceil(math.log10(max(abs(extent.low), abs(extent.high))))
        low = 0 if extent.low >= 0 else -high
    graded = ScoreScale(low, high, extent.step)
    return graded if graded.fault() is None else ScoreScale(low, high)
