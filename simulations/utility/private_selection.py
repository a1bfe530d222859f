"""What a search on private records costs, and what it gains: at one ε for search and winner.

    python simulations/utility/private_selection.py --data DATA --cache CACHE [--table]

Two ways to pay for m trials of a study, of which the best is taken:

- all trials are seen, so their steps compose (`cloister tune --budget`)
- all trials stay in one place and the winner alone leaves. Then the number of trials must itself be
  drawn, and what leaves costs more than one trial, but less than all (Papernot & Steinke 2022,
  arXiv:2110.03620, theorems 2 and 6). m is then the expected number.

Each trial's noise is the least with which the whole search meets ε. The score of a trial is taken
from the public test set: a noised score on private records would cost more. So a search looks
better here than it is, in three ways: it sees the test set, it tries twelve settings however many
it has paid for, and its score costs nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from compare import BASE, CLIPS, LOGIT_NOISE, PRODUCTS, SEEDS, SETS
from dp_accounting.rdp.rdp_privacy_accountant import compute_delta
from emulate import DELTA, RATE, ROUNDS, Setting, accuracy, iterates, logit_noise
from features import Features, features

from cloister.privacy.accounting import calibrate, epsilon
from cloister.privacy.divergences import divergences
from cloister.privacy.events import GaussianEvent
from cloister.privacy.renyi import rdp_budget

RESULTS = Path(__file__).parent / "private_selection.jsonl"
EPSILONS, TRIALS = (1.0, 8.0), (5, 20)
# Orders at which a bound is looked for: those of small ε are large.
ORDERS = tuple(1 + step / 10 for step in range(1, 100)) + tuple(map(float, range(11, 257)))
# Widest interval of noise multipliers that a search by halves leaves.
CLOSE = 1e-3


def selection_epsilon(noise_multiplier: float, trials: int) -> float:
    """ε of the winner alone, where the number of trials is drawn with this mean.

    The better of the two laws that theorem 2 (with η = 1: geometric) and theorem 6 (Poisson) give,
    at the best of `ORDERS`.

    Args:
        noise_multiplier: σ of each trial.
        trials: The expected number, at least 2.
    """
    one = [ROUNDS * each for each in divergences(noise_multiplier, RATE, ORDERS)]
    # η = 1 and γ = 1 / m: (1 + η)(1 − 1/λ̂) ε̂ + (1 + η) log(1/γ) / λ̂, at the best λ̂.
    drawn = 2 * min(
        rho * (1 - 1 / order) + math.log(trials) / order
        for order, rho in zip(ORDERS, one, strict=True)
    )
    found = math.inf
    for order, rho in zip(ORDERS, one, strict=True):
        # Theorem 6 needs that a trial is (log(1 + 1/(λ − 1)), δ̂)-private.
        missed, _ = compute_delta(ORDERS, one, math.log1p(1 / (order - 1)))
        whole = rho + min(drawn, trials * missed) + math.log(trials) / (order - 1)
        found = min(found, whole - rdp_budget(0.0, DELTA, order))
    return found


def composed_noise(total: float, trials: int) -> float:
    """σ of each of some trials that are all seen."""
    return calibrate(RATE, ROUNDS * trials, total, DELTA)


@cache
def selected_noise(total: float, trials: int) -> float:
    """σ of each trial, of which the winner alone leaves."""
    low = calibrate(RATE, ROUNDS, total, DELTA)
    high = 2 * low
    while selection_epsilon(high, trials) > total:
        low, high = high, 2 * high
    while high - low > CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if selection_epsilon(middle, trials) <= total else (middle, high)
    return high


def epsilon_of_one(noise_multiplier: float) -> float:
    """ε of one trial that nobody selected."""
    event = GaussianEvent(noise_multiplier=noise_multiplier, sample_rate=RATE, steps=ROUNDS)
    return epsilon([event], DELTA)


PAYING: dict[str, Callable[[float, int], float]] = {
    "all seen": composed_noise,
    "winner alone": selected_noise,
}


def main() -> None:
    """Runs what is not in the file yet, or prints the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only", nargs="*", default=SETS)
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    given = parser.parse_args()
    if given.table:
        print("\n".join(table(_kept())))
        return
    if given.data is None or given.cache is None:
        parser.error("--data and --cache are needed, or --table")
    done = {(row["data"], row["seed"]) for row in _kept()}
    for name in given.only:
        found = features(given.data, name, given.cache, BASE, None)
        for seed in SEEDS:
            if (name, seed) not in done:
                new = list(rows(found, seed))
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps({"data": name, **row}) + "\n" for row in new)


def rows(found: Features, seed: int) -> Iterator[dict[str, Any]]:
    """Accuracies of a seed: of the default rate at the whole ε, and of a search's best trial."""
    for total in EPSILONS:
        default = Setting(epsilon=total, clip=1.0, rate=1.0)
        default = replace(default, rate=LOGIT_NOISE / logit_noise(found, default))
        yield {
            "seed": seed,
            "total": total,
            "paying": "no search",
            "accuracy": _accuracy(found, default, seed),
        }
        for paying, noise in PAYING.items():
            for trials in TRIALS:
                one = epsilon_of_one(noise(total, trials))
                yield {
                    "seed": seed,
                    "total": total,
                    "paying": paying,
                    "trials": trials,
                    "epsilon": one,
                    "accuracy": max(_accuracy(found, tried, seed) for tried in _tried(one)),
                }


def _tried(one: float) -> Iterator[Setting]:
    for clip in CLIPS:
        for product in PRODUCTS:
            yield Setting(epsilon=one, clip=clip, rate=product / clip)


def _accuracy(found: Features, setting: Setting, seed: int) -> float:
    return accuracy(found, iterates(found, setting, seed)[-1][0])


def _kept() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def table(kept: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table: ε of a trial, and the search's points over no search, by seed."""
    sets = list(dict.fromkeys(row["data"] for row in kept))
    yield "| ε in all | paid | trials | ε of a trial | " + " | ".join(sets) + " |"
    yield "|---" * (4 + len(sets)) + "|"
    for total in EPSILONS:
        for paying in PAYING:
            for trials in TRIALS:
                here = [
                    row
                    for row in kept
                    if (row["total"], row["paying"], row.get("trials")) == (total, paying, trials)
                ]
                cells = [_gain(kept, here, total, name) for name in sets]
                each = f"{here[0]['epsilon']:.2f}" if here else "not run"
                yield f"| {total:g} | {paying} | {trials} | {each} | {' | '.join(cells)} |"


def _gain(
    kept: Sequence[dict[str, Any]], here: Sequence[dict[str, Any]], total: float, name: str
) -> str:
    without = {
        row["seed"]: row["accuracy"]
        for row in kept
        if (row["data"], row["total"], row["paying"]) == (name, total, "no search")
    }
    points = [100 * (row["accuracy"] - without[row["seed"]]) for row in here if row["data"] == name]
    return f"{fmean(points):+.1f} ± {stdev(points):.1f}" if len(points) > 1 else "not run"


if __name__ == "__main__":
    main()
