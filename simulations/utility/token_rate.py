"""What the default rate of a private head that finds entities loses, read off the recorded rows.

    python simulations/utility/token_rate.py

Nothing is trained. Of each study of entities.jsonl whose clip bounds and rates were searched on
validation, F1 at the rate of `cloister.recipe.head_defaults` is read between the two rates tried
around it, evenly in the rate's logarithm, at the rule's clip bound; beside the best F1 of all that
was tried there. All at the first seed, at which every setting was run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from emulate import Setting, noise_of_sum
from entities import RESULTS, SITES
from grid_store import SEEDS, Row, Store

from cloister.recipe.head_defaults import HEADS, HIDDEN, HeadRule

RULE = HEADS["token-classification"]
# Sentences of the training file, which all sites have together.
SENTENCES = 5432


class Loss(NamedTuple):
    """What the rule loses in one study, in F1.

    Attributes:
        noise: Who adds it.
        epsilon: Of each site.
        rounds: T.
        sample_rate: q.
        step: η C / (1 − β) by the rule.
        best: The best F1 of what was tried.
        found: F1 at the rule's rate.
    """

    noise: str
    epsilon: float
    rounds: int
    sample_rate: float
    step: float
    best: float
    found: float

    @property
    def lost(self) -> float:
        """Returns best − found."""
        return self.best - self.found


def losses(rows: Iterable[Row], rounds: Sequence[int] = (30, 120)) -> list[Loss]:
    """Returns the loss in each searched study of so many rounds, the largest first."""
    studies: dict[tuple[str, str, float, int, float], list[Row]] = {}
    for row in rows:
        is_searched = row["split"] == "validation" and row["seed"] == SEEDS[0]
        if is_searched and row.get("epsilon") is not None and row["rounds"] in rounds:
            study = (row["noise"], row["epsilon"], row["rounds"], row["sample_rate"])
            studies.setdefault((row["base"], *study), []).append(row)
    found = [_loss(*study, tried) for (_, *study), tried in studies.items()]
    return sorted(found, key=lambda one: -one.lost)


def _loss(noise: str, epsilon: float, rounds: int, sample_rate: float, tried: list[Row]) -> Loss:
    step = step_by(RULE, noise, epsilon, rounds, sample_rate)
    curve = sorted(
        (row["product"] / (1 - row["momentum"]), row["f1"])
        for row in tried
        if row["clip"] == RULE.clip
    )
    best = max(row["f1"] for row in tried)
    return Loss(noise, epsilon, rounds, sample_rate, step, best, between(curve, step))


def step_by(rule: HeadRule, noise: str, epsilon: float, rounds: int, sample_rate: float) -> float:
    """Returns η C / (1 − β) of a study of these sites, on a falling rate."""
    setting = Setting(
        epsilon=epsilon,
        clip=1.0,
        rate=1.0,
        noise=noise,
        rounds=rounds,
        sites=SITES,
        sample_rate=sample_rate,
    )
    deviation = noise_of_sum(setting) / (sample_rate * SENTENCES)
    by_noise = rule.logit_noise / (deviation * math.sqrt(rounds / 3 * HIDDEN))
    return min(by_noise, rule.longest_step)


def between(curve: Sequence[tuple[float, float]], step: float) -> float:
    """Returns F1 at a step between two that were tried.

    Args:
        curve: Steps and F1, in rising order.
        step: At least the first step and at most the last.

    Raises:
        ValueError: It is beyond what was tried.
    """
    for (low, low_f1), (high, high_f1) in pairwise(curve):
        if low <= step <= high:
            share = math.log(step / low) / math.log(high / low)
            return low_f1 + share * (high_f1 - low_f1)
    raise ValueError(f"a step of {step:g} is beyond what was tried ({curve[0][0]:g} to …)")


def main() -> None:
    """Prints the losses as a table."""
    print("| noise | ε | rounds | sample rate | η C / (1 − β) | best F1 tried | by rule | lost |")
    print("|---|---|---|---|---|---|---|---|")
    for one in losses(Store(RESULTS).rows):
        study = f"| {one.noise} | {one.epsilon:g} | {one.rounds} | {one.sample_rate:g} |"
        scores = f" {one.step:.1f} | {one.best:.3f} | {one.found:.3f} | {one.lost:.3f} |"
        print(study + scores)


if __name__ == "__main__":
    main()
