"""Tables of private heads that find entities, at equal ε: rows of docs/utility-tables.md.

    python simulations/utility/entities.py --data DATA --cache CACHE
    python simulations/utility/entities.py --table

The first runs what entities.jsonl does not have yet; each row of the file is one training. How a
setting is chosen and reported: `search.py`.
"""

from __future__ import annotations

import argparse
import base64
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from features import Reading
from grid_store import Row, Store
from ratio_tables import entity_tables
from search import search
from tagger import Outside, Tagger, Tagging, WordFeatures, WordRegression
from words import Sentences, entity_counts, f1, sentences

RESULTS = Path(__file__).parent / "entities.jsonl"
DATA, SITES = "ncbi_disease", 5
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# As many layers as were best at a look, and all, as a recipe that names none has them.
BASES = {"MiniLM, 4 layers": Reading(MINILM, 4), "MiniLM": Reading(MINILM)}
# The order in which they run: if time ends, the goal's ε is there.
EPSILONS = (8.0, 1.0, 3.0, 0.5)
CLIPS, PRODUCTS = (0.1, 0.3, 1.0), (1.0, 3.0, 10.0, 30.0)
PENALTIES, WORD_PENALTIES = (0.001, 0.01, 0.1, 1.0), (0.03, 0.1, 0.3, 1.0)
# Four times the rounds of as many records and of twice as many, at a momentum that counts a step
# ten times, so products of a fifth go as far as those above.
LONG, LONG_PRODUCTS, MOMENTUM = ((120, 0.25), (120, 0.5)), (0.3, 1.0, 3.0), 0.9

Method: TypeAlias = Tagger | WordRegression | WordFeatures | Outside
Choices = Callable[[float | None], list[Method]]


def tuned(noise: str) -> Choices:
    """Studies of 30 rounds at a rate of 0.25, as in the tables of classification."""
    return lambda epsilon: [
        Tagger(epsilon=epsilon, noise=noise, clip=clip, product=product)
        for clip in CLIPS
        for product in PRODUCTS
    ]


def levers(epsilon: float | None) -> list[Method]:
    """Longer studies and larger batches, with more momentum."""
    return [
        Tagger(
            epsilon=epsilon,
            clip=0.3,
            product=product,
            momentum=MOMENTUM,
            rounds=rounds,
            sample_rate=rate,
        )
        for rounds, rate in LONG
        for product in LONG_PRODUCTS
    ]


def defaults(epsilon: float | None) -> list[Method]:
    """What a recipe of token classification with adapters has that states neither a rate nor a clip
    bound, and what one of a head alone had before its rate followed from its noise."""
    return [Tagger(epsilon=epsilon, clip=1.0, product=24.0, momentum=0.0)]


def without_privacy(_: float | None) -> list[Method]:
    """Heads of clipped rounds and of longer ones, and logistic regression to convergence."""
    penalties = [WordRegression(inverse_penalty=penalty) for penalty in PENALTIES]
    return [*penalties, *tuned("central")(None), *levers(None)]


# Each row's choices and ε; the first two need no base.
ROWS: dict[str, tuple[Choices, tuple[float | None, ...]]] = {
    "no entity": (lambda _: [Outside()], (None,)),
    "words": (lambda _: [WordFeatures(inverse_penalty=C) for C in WORD_PENALTIES], (None,)),
    "without privacy": (without_privacy, (None,)),
    "shared, defaults": (defaults, EPSILONS),
    "shared, tuned": (tuned("shared"), EPSILONS),
    "levers": (levers, EPSILONS),
    "central, tuned": (tuned("central"), EPSILONS),
    "own, tuned": (tuned("own"), EPSILONS),
}
BASELESS = ("no entity", "words")


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for the bases' states")
    parser.add_argument("--base", nargs="*", default=list(BASES), choices=list(BASES), dest="bases")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(words)
    store = Store(given.results)
    if given.table:
        print(entity_tables(store.rows))
        return
    if given.data is None or given.cache is None:
        parser.error("--data and --cache are needed to run; --table prints what was run")
    for name, reading in ((None, None), *((base, BASES[base]) for base in given.bases)):
        rows = [row for row in given.rows if (row in BASELESS) == (name is None)]
        run_rows(
            store, {"data": DATA, "base": name}, opener(given.data, reading, given.cache), rows
        )


def run_rows(store: Store, case: Row, opened: Callable[[str], Tagging], rows: list[str]) -> None:
    """Runs every row of a base, at each ε."""

    def run(about: Row, method: Method, part: str, seed: int) -> None:
        task = opened(part)
        tags = task.test.tagged(method.labels(task, seed))
        counts = entity_counts(tags, task.test.tags)
        outcome: dict[str, object] = {"f1": round(f1(counts), 6)}
        if part == "test":  # entities of each sentence, which a difference's error needs
            outcome["counts"] = base64.b64encode(zlib.compress(counts.tobytes())).decode()
        store.append(about, outcome)

    for name in rows:
        choices, epsilons = ROWS[name]
        search(store, {**case, "row": name}, choices, epsilons, run)


def opener(data: Path, reading: Reading | None, kept: Path) -> Callable[[str], Tagging]:
    """Opens what settings are chosen on (`validation`) or reported on (`test`)."""

    @cache
    def part(name: str) -> Sentences:
        return sentences(data / DATA / f"{name}.jsonl", reading, kept)

    return lambda which: Tagging(
        part("train"), part("valid" if which == "validation" else "test"), SITES
    )


if __name__ == "__main__":
    main()
