"""Small batches with correlated noise against independent noise, on frozen features, at equal ε:
raw rows to bands.jsonl, and the table of docs/utility.md.

    python simulations/utility/bands.py --data DATA --features words
    python simulations/utility/bands.py --data DATA --features MiniLM --cache CACHE
    python simulations/utility/bands.py --table

`words` are hashed counts of words, 384 values without any base, which take seconds to compute;
`MiniLM` are the vectors that `compare.py` uses.

Five sites with own noise, 120 rounds of one batch at q = 0.02. With b bands every site's records
fall into b groups at random, a round draws from one group at the rate b q, and the noise of each
site is that of `privacy.noise_bands = b`. Both kinds of noise get the best of the same rates and
momenta, chosen on the test set, which flatters both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from compare import BASE, SEEDS, SETS
from emulate import DELTA, SITES, Matrix, accuracy, with_bias
from features import Features, features, labelled

from cloister.privacy.accounting import calibrate
from cloister.privacy.bands import coefficients, length

RESULTS = Path(__file__).parent / "bands.jsonl"
ROUNDS, RATE, CLIP = 120, 0.02, 1.0
BANDS = (1, 2, 4, 8)
EPSILONS = (8.0, 1.0)
RATES, MOMENTA = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), (0.0, 0.5)
# Values of a vector of hashed words: as many as MiniLM's.
WIDTH = 384


@cache
def noise(epsilon: float, bands: int) -> tuple[float, tuple[int, ...]]:
    """σ that meets ε with so many bands, and their coefficients."""
    k = coefficients(bands, ROUNDS) if bands > 1 else (1,)
    return calibrate(bands * RATE, ROUNDS // bands, epsilon, DELTA), k


def head(
    found: Features, epsilon: float, bands: int, rate: float, momentum: float, seed: int
) -> Matrix:
    """The head [C, H + 1] after all rounds, with a learning rate that falls to 0."""
    rng = np.random.default_rng(seed)
    rows = with_bias(found.train)
    lengths = np.linalg.norm(rows, axis=1)
    groups = rng.integers(bands, size=len(rows))
    sigma, k = noise(epsilon, bands)
    batch = RATE * len(rows)
    deviation = math.sqrt(SITES) * sigma * CLIP * length(k) / batch
    weight = np.zeros((found.classes, rows.shape[1]), np.float32)
    moved = np.zeros_like(weight)
    earlier: list[Matrix] = []
    for step in range(ROUNDS):
        mine = (rng.random(len(rows)) < bands * RATE) & (groups == step % bands)
        drawn = np.flatnonzero(mine)
        scores = rows[drawn] @ weight.T
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(drawn)), found.train_labels[drawn]] -= 1
        norms = np.linalg.norm(error, axis=1) * lengths[drawn]
        error *= np.minimum(1, CLIP / np.maximum(norms, 1e-12))[:, None]
        own = deviation * rng.standard_normal(weight.shape, dtype=np.float32)
        for factor, before in zip(k[1:], earlier, strict=False):
            own -= factor * before
        own /= k[0]
        earlier = [own, *earlier][: bands - 1]
        mean = error.T @ rows[drawn] / batch + own
        moved = momentum * moved - rate * (ROUNDS - step) / ROUNDS * mean
        weight = weight + moved
    return weight


def rows_of(found: Features, done: set[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    """Every run of a data set that was not done before."""
    for epsilon in EPSILONS:
        for bands in BANDS:
            for rate in RATES:
                for momentum in MOMENTA:
                    for seed in SEEDS:
                        if (epsilon, bands, rate, momentum, seed) in done:
                            continue
                        weight = head(found, epsilon, bands, rate, momentum, seed)
                        yield {
                            "epsilon": epsilon,
                            "bands": bands,
                            "rate": rate,
                            "momentum": momentum,
                            "seed": seed,
                            "accuracy": accuracy(found, weight),
                        }


def main() -> None:
    """Runs all studies, or prints the table of those that ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--features", choices=("words", "MiniLM"), default="words")
    parser.add_argument("--only", nargs="*", default=SETS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        table()
        return
    for name in given.only:
        found = (
            hashed(given.data / name)
            if given.features == "words"
            else features(given.data, name, given.cache, BASE, None)
        )
        done = {
            tuple(row[key] for key in ("epsilon", "bands", "rate", "momentum", "seed"))
            for row in kept_rows()
            if (row["data"], row["features"]) == (name, given.features)
        }
        with RESULTS.open("a", encoding="utf-8") as file:
            for row in rows_of(found, done):
                file.write(json.dumps({"data": name, "features": given.features, **row}) + "\n")


def kept_rows() -> list[dict[str, Any]]:
    """The runs in the file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def hashed(folder: Path) -> Features:
    """Vectors [n, 384] of norm √384: counts of words and of pairs of words, each added to one value
    with a sign, by a hash of the text alone."""
    parts = {part: labelled(folder / f"{part}.jsonl") for part in ("train", "test")}
    labels = sorted({label for _, label in parts["train"]})
    found = {}
    for part, rows in parts.items():
        vectors = np.zeros((len(rows), WIDTH), np.float32)
        for vector, (text, _) in zip(vectors, rows, strict=True):
            words = text.lower().split()
            for word in [*words, *map(" ".join, pairwise(words))]:
                place = zlib.crc32(word.encode())
                vector[place % WIDTH] += 1 if place & 2**20 else -1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        found[part] = vectors * (math.sqrt(WIDTH) / np.maximum(norms, 1e-9))
        found[f"{part}_labels"] = np.array([labels.index(label) for _, label in rows])
    return Features(**found)


def table() -> None:
    """Prints accuracies at the best setting of each number of bands, and the gain of the best."""
    rows = kept_rows()
    print(
        "| features | data | ε | independent | 2 bands | 4 bands | 8 bands "
        "| best bands − independent | p |"
    )
    print("|---" * 9 + "|")
    for case in dict.fromkeys((row["features"], row["data"], row["epsilon"]) for row in rows):
        here = [row for row in rows if (row["features"], row["data"], row["epsilon"]) == case]
        scores = {bands: best(here, bands) for bands in BANDS}
        peak = max(BANDS[1:], key=lambda bands: statistics.mean(scores[bands]))
        points = [100 * (a - b) for a, b in zip(scores[peak], scores[1], strict=True)]
        cells = " | ".join(
            f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}"
            for found in scores.values()
        )
        gain = f"{statistics.mean(points):+.1f} ± {statistics.stdev(points):.1f} (b = {peak})"
        kind, data, epsilon = case
        print(f"| {kind} | {data} | {epsilon:g} | {cells} | {gain} | {paired(points):.3f} |")


def best(rows: list[dict[str, Any]], bands: int) -> list[float]:
    """Accuracies by seed at the rate and momentum with the highest mean."""
    groups: dict[tuple[float, float], dict[int, float]] = {}
    for row in rows:
        if row["bands"] == bands:
            seeds = groups.setdefault((row["rate"], row["momentum"]), {})
            seeds[row["seed"]] = row["accuracy"]
    found = max(groups.values(), key=lambda seeds: statistics.mean(seeds.values()))
    return [found[seed] for seed in sorted(found)]


def paired(points: list[float]) -> float:
    """Returns p of a paired t-test, two-sided."""
    from scipy import stats

    return float(stats.ttest_1samp(points, 0.0).pvalue)


if __name__ == "__main__":
    main()
