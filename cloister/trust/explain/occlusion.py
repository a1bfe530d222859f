"""Attributes by occlusion: the figure's fall if one piece is blank (Zeiler and Fergus 2014)."""

from __future__ import annotations

import torch

from cloister.trust.explain.gradients import Attribution
from cloister.trust.explain.reading import ModelReading


def occlusion(reading: ModelReading) -> Attribution:
    """Attributes to each piece the figure of the whole input minus the figure without the piece."""
    count = len(reading.pieces)
    kept = torch.cat([reading.whole, ~torch.eye(count, dtype=torch.bool)])
    figures = reading.figures(kept)
    return Attribution((figures[0] - figures[1:]).float())
