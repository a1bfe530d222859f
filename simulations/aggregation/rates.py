"""The learning rate of each method: climbed to on the validation set, one climb for each ε."""

from __future__ import annotations

import json
from pathlib import Path

TUNING = Path(__file__).parent / "tuning.jsonl"
# Half decades, as finely as one seed on a thousand validation records can tell.
LADDER = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# Where the rate of each ε is climbed to; 3 takes that of 8.
TUNED_AT = {8.0: 8.0, 3.0: 8.0, 1.0: 1.0, None: None}


def level(epsilon: float | None) -> str:
    """The name of the ε whose rate a study of this ε takes."""
    tuned = TUNED_AT[epsilon]
    return "none" if tuned is None else f"{tuned:g}"


def next_rate(scores: dict[float, float], start: float) -> float | None:
    """What to try next: the best rate's neighbours on the ladder; None: both are tried.

    Args:
        scores: By rate, so far; higher is better.
        start: The first rate.
    """
    step = LADDER.index(best(scores) if scores else start)
    around = [LADDER[i] for i in (step, step - 1, step + 1) if 0 <= i < len(LADDER)]
    return next((rate for rate in around if rate not in scores), None)


def best(scores: dict[float, float]) -> float:
    """The rate with the highest score; of equals the smallest."""
    return max(sorted(scores), key=lambda rate: scores[rate])


def tried(data: str, epsilon: float | None, method: str) -> dict[float, float]:
    """Scores by rate so far, at the ε whose rate a study of this ε takes."""
    if not TUNING.exists():
        return {}
    rows = [json.loads(line) for line in TUNING.read_text(encoding="utf-8").splitlines()]
    wanted = (data, TUNED_AT[epsilon], method)
    return {
        row["rate"]: row["accuracy"]
        for row in rows
        if (row["data"], row["epsilon"], row["method"]) == wanted
    }


def note(data: str, epsilon: float | None, method: str, rate: float, accuracy: float) -> None:
    """Appends a score; several processes may."""
    row = {"data": data, "epsilon": epsilon, "method": method, "rate": rate, "accuracy": accuracy}
    with TUNING.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
