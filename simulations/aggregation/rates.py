"""Learning rate and adapter scale of each method: climbed to on the validation set, at each ε.

Head and adapters are clipped and noised as one vector, so `lora.alpha` is no matter of the learning
rate: it sets how much of a gradient's length, and so of what stands out of the noise, is the
adapters'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

TUNING = Path(__file__).parent / "tuning.jsonl"


class Tuned(NamedTuple):
    """What is looked for."""

    alpha: float
    rate: float


# Half decades, factors of four: as finely as one seed on a thousand validation records can tell.
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ALPHAS = (8.0, 32.0, 128.0, 512.0)
# A larger scale goes with a smaller rate.
STEPS = ((1, -1), (1, 0), (0, -1), (0, 1), (-1, 0), (-1, 1))
# The ε at which a study of each ε has been tuned.
TUNED_AT = {8.0: 8.0, 3.0: 8.0, 1.0: 1.0, None: None}


def level(epsilon: float | None) -> str:
    """The name of the ε at which a study of this ε was tuned."""
    tuned = TUNED_AT[epsilon]
    return "none" if tuned is None else f"{tuned:g}"


def next_try(
    scores: dict[Tuned, float], start: Tuned, alphas: tuple[float, ...] = ALPHAS
) -> Tuned | None:
    """What to try next: what lies around the best; None: all of it is tried.

    Args:
        scores: So far; higher is better.
        start: The first to try.
        alphas: Scales that may be tried.
    """
    at = best(scores) if scores else start
    alpha, rate = ALPHAS.index(at.alpha), RATES.index(at.rate)
    around = [at] + [
        Tuned(ALPHAS[alpha + up], RATES[rate + right])
        for up, right in STEPS
        if 0 <= alpha + up < len(ALPHAS) and 0 <= rate + right < len(RATES)
    ]
    return next((one for one in around if one.alpha in alphas and one not in scores), None)


def best(scores: dict[Tuned, float]) -> Tuned:
    """The highest score's; of equals the smallest scale and rate."""
    return max(sorted(scores), key=lambda one: scores[one])


def tried(data: str, epsilon: float | None, method: str) -> dict[Tuned, float]:
    """Scores so far, at the ε at which a study of this ε is tuned."""
    if not TUNING.exists():
        return {}
    rows = [json.loads(line) for line in TUNING.read_text(encoding="utf-8").splitlines()]
    wanted = (data, TUNED_AT[epsilon], method)
    return {
        Tuned(row["alpha"], row["rate"]): row["accuracy"]
        for row in rows
        if (row["data"], row["epsilon"], row["method"]) == wanted
    }


def note(data: str, epsilon: float | None, method: str, at: Tuned, accuracy: float) -> None:
    """Appends a score; several processes may."""
    row = {"data": data, "epsilon": epsilon, "method": method, **at._asdict(), "accuracy": accuracy}
    with TUNING.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
