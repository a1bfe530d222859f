"""The learning rate of each method: climbed to on the validation set, at each ε."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

TUNING = Path(__file__).parent / "tuning.jsonl"


class Tuned(NamedTuple):
    """What a method runs at: `lora.alpha`, and the learning rate."""

    alpha: float
    rate: float


# Half decades: as finely as one seed on a thousand validation records can tell.
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ALPHA = 8.0  # the default; other scales' rows in the file are of what was tried beside
# The ε at which a study of each ε has been tuned.
TUNED_AT = {8.0: 8.0, 3.0: 8.0, 1.0: 1.0, None: None}


def level(epsilon: float | None) -> str:
    """The name of the ε at which a study of this ε was tuned."""
    tuned = TUNED_AT[epsilon]
    return "none" if tuned is None else f"{tuned:g}"


def next_try(scores: dict[Tuned, float], first: float) -> Tuned | None:
    """What to try next; None: the best rate's neighbours are tried.

    Args:
        scores: So far; higher is better.
        first: The first rate.
    """
    peak = best(scores).rate if scores else first
    place = RATES.index(peak)
    for at in (place, place - 1, place + 1):
        if 0 <= at < len(RATES) and Tuned(ALPHA, RATES[at]) not in scores:
            return Tuned(ALPHA, RATES[at])
    return None


def best(scores: dict[Tuned, float]) -> Tuned:
    """The highest score's; of equals the smallest rate."""
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
        if (row["data"], row["epsilon"], row["method"]) == wanted and row["alpha"] == ALPHA
    }


def note(data: str, epsilon: float | None, method: str, at: Tuned, accuracy: float) -> None:
    """Appends a score; several processes may."""
    row = {"data": data, "epsilon": epsilon, "method": method, **at._asdict(), "accuracy": accuracy}
    with TUNING.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
