"""Levers that cost no ε, on frozen features of MiniLM, at equal ε: raw rows to results.jsonl.

    python simulations/utility/compare.py --data DATA --cache CACHE

Each row is one run; there are three seeds of everything. `table.py` prints the tables of
docs/utility.md of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from emulate import Setting, accuracy, delivered, iterates, logit_noise, public_head
from features import Features, features

RESULTS = Path(__file__).parent / "results.jsonl"
SETS = ("rt_polarity", "product_sentiment", "banking77")
BASE = "sentence-transformers/all-MiniLM-L6-v2"
EPSILONS, NOISES, SEEDS = (1.0, 8.0), ("own", "shared"), (0, 1, 2)
# Rates in units of one over the clip bound: η C is how far a round of clipped gradients that agree
# goes.
CLIPS, PRODUCTS = (1.0, 4.0, 8.0), (1.0, 3.0, 10.0, 30.0)
# Of the default rate of a head (`cloister.recipe.head_defaults`).
LOGIT_NOISE = 1.5
# Records that are public in the comparison of warm starts; the sites do not have them.
PUBLIC = (100, 500)


def main() -> None:
    """Runs what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=SETS)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    given = parser.parse_args()
    for name in given.only:
        found = features(given.data, name, given.cache, BASE, None)
        with RESULTS.open("a", encoding="utf-8") as file:
            for row in rows(found, given.kinds):
                file.write(json.dumps({"data": name, **row}) + "\n")
                file.flush()


def rows(found: Features, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every run of a data set."""
    for epsilon in EPSILONS:
        for noise in NOISES:
            for seed in SEEDS:
                for kind in kinds:
                    yield from KINDS[kind](found, epsilon, noise, seed)


def _row(what: str, setting: Setting, seed: int, **more: object) -> dict[str, Any]:
    return {"what": what, **asdict(setting), "seed": seed, **more}


def _score(found: Features, setting: Setting, seed: int) -> float:
    return accuracy(found, iterates(found, setting, seed)[-1][0])


def _grid(found: Features, epsilon: float, noise: str, seed: int) -> Iterator[dict[str, Any]]:
    """Clip bound and rate, with and without momentum; the defaults among them."""
    for momentum in (0.0, 0.5):
        base = Setting(epsilon=epsilon, noise=noise, clip=1.0, rate=1.0, momentum=momentum)
        for clip in CLIPS:
            for product in PRODUCTS:
                setting = replace(base, clip=clip, rate=product / clip)
                yield _row("grid", setting, seed, accuracy=_score(found, setting, seed))
        default = replace(base, clip=8.0, rate=1.0)
        yield _row("default", default, seed, accuracy=_score(found, default, seed))


def _averages(found: Features, epsilon: float, noise: str, seed: int) -> Iterator[dict[str, Any]]:
    """What is delivered of one run, at two rates and two schedules."""
    for schedule in ("linear", "constant"):
        for product in (3.0, 10.0):
            setting = Setting(
                epsilon=epsilon, noise=noise, clip=1.0, rate=product, schedule=schedule
            )
            for name, weight in delivered(setting, iterates(found, setting, seed)).items():
                score = accuracy(found, weight)
                yield _row("delivered", setting, seed, delivered=name, accuracy=score)


def _adaptive(found: Features, epsilon: float, noise: str, seed: int) -> Iterator[dict[str, Any]]:
    """Adam at the server, with and without the noise in its second moment."""
    for strategy in ("fedadam", "fedadam-bc"):
        for rate in (0.003, 0.01, 0.03, 0.1):
            setting = Setting(epsilon=epsilon, noise=noise, clip=1.0, rate=rate, strategy=strategy)
            yield _row("adaptive", setting, seed, accuracy=_score(found, setting, seed))


def _warm(found: Features, epsilon: float, noise: str, seed: int) -> Iterator[dict[str, Any]]:
    """The same private study from zero, and from a head that public records trained."""
    order = np.random.default_rng(seed).permutation(len(found.train))
    for public in PUBLIC:
        shown, kept = order[:public], order[public:]
        open_ones = found._replace(train=found.train[shown], train_labels=found.train_labels[shown])
        sites = found._replace(train=found.train[kept], train_labels=found.train_labels[kept])
        start = public_head(open_ones, 200, 0.1, seed)
        alone = accuracy(found, start)
        setting = Setting(epsilon=epsilon, noise=noise, clip=1.0, rate=1.0)
        setting = replace(setting, rate=LOGIT_NOISE / logit_noise(sites, setting))
        for begins in (None, start):
            yield _row(
                "warm",
                setting,
                seed,
                public=public,
                begins="zero" if begins is None else "public",
                alone=alone,
                accuracy=accuracy(found, iterates(sites, setting, seed, begins)[-1][0]),
            )


def _by_noise(found: Features, epsilon: float, noise: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rates of which the noise in a logit at the end has a given deviation."""
    for momentum in (0.0, 0.5):
        base = Setting(epsilon=epsilon, noise=noise, clip=1.0, rate=1.0, momentum=momentum)
        at_one = logit_noise(found, base)
        for deviation in (LOGIT_NOISE / 2, LOGIT_NOISE, 2 * LOGIT_NOISE):
            setting = replace(base, rate=deviation / at_one)
            score = _score(found, setting, seed)
            yield _row("by noise", setting, seed, deviation=deviation, accuracy=score)


KINDS = {
    "grid": _grid,
    "delivered": _averages,
    "adaptive": _adaptive,
    "warm": _warm,
    "by noise": _by_noise,
}

if __name__ == "__main__":
    main()
