"""LoRA in real simulations: rows of docs/utility-tables.md that need no emulation.

    python simulations/utility/lora.py --data DATA --cache CACHE [--study chat]
    python simulations/utility/lora.py --table

The first runs what lora.jsonl does not have yet, the most important rows first; each run is a
`cloister simulate` of a recipe of simulations/ with five sites, or one for each product. Where
there are several rates, the one with the best score on validation at one seed is run on test.
`--table` prints what is there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from grid_store import SEEDS, Row, Store, score, settings, where
from ratio_tables import lora_tables
from sets import HELD_OUT

from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from cloister.simulation.twin import plain_twin

Files = dict[str, list[str]]
# A row of the tables, and an ε; None: without privacy.
Case = tuple[str, float | None]
PARTS = ("train", "valid", "test")
SIMULATIONS = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "lora.jsonl"


class Study(NamedTuple):
    """A recipe, and what it is run with.

    Attributes:
        data: The data set's folder.
        recipe: In simulations/.
        metric: What is reported, as `RunResult.metric`.
        rates: To choose from, for each row and ε; what is not named is not run.
        plain_optimizer: At the sites, without privacy.
        fields: Fields that differ from the recipe's.
        tested: How many of the test records, at random, and half as many to choose on; None: all.
    """

    data: str
    recipe: str
    metric: str
    rates: Mapping[Case, tuple[float, ...]]
    plain_optimizer: str
    fields: tuple[str, ...] = ()
    tested: int | None = None


# Gradient rounds, since noise is shared in them alone; with one step a round they are the recipe's.
IN_ROUNDS = ("training.mode=gradient-rounds", "federation.evaluate_every=60")
FIVE = "data.sites=5"
STUDIES = {
    "chat": Study(
        "sgd_customer_service",
        "customer_service_smollm2.toml",
        "perplexity",
        {
            ("shared noise", 8.0): (4.0, 2.2, 1.5, 0.7),
            ("shared noise", 1.0): (4.0, 0.7),
            ("own noise", 8.0): (1.5, 0.7),
            ("own noise", 1.0): (0.7,),
            ("shared noise, larger batches", 8.0): (2.7, 4.0),
            ("shared noise, larger batches", 1.0): (1.0,),
            ("without privacy", None): (1.5, 4.0, 10.0),
            ("without privacy, larger batches", None): (4.0, 2.7),
        },
        "sgd",
        tested=200,
    ),
    "movie reviews": Study(
        "rt_polarity",
        "movie_reviews.toml",
        "accuracy",
        {
            ("shared noise", 8.0): (0.4,),
            ("shared noise", 1.0): (0.4,),
            ("own noise", 8.0): (0.4,),
            ("own noise", 1.0): (0.4,),
            ("without privacy", None): (0.003, 0.001),
        },
        "adamw",
        (FIVE, *IN_ROUNDS, "data.public_records=1706", "training.expected_batch_size=410"),
    ),
    "bank intents": Study(
        "banking77",
        "bank_intents.toml",
        "accuracy",
        {
            ("shared noise", 8.0): (2.0,),
            ("shared noise", 1.0): (2.0,),
            ("own noise", 8.0): (2.0,),
            ("own noise", 1.0): (2.0,),
            ("without privacy", None): (0.003, 0.01, 0.03),
        },
        "adamw",
        (FIVE, *IN_ROUNDS),
    ),
    "product sentiment": Study(  # a product a site
        "product_sentiment",
        "product_sentiment.toml",
        "accuracy",
        {
            ("shared noise", 8.0): (0.1, 0.3),
            ("shared noise", 1.0): (0.1,),
            ("own noise", 8.0): (0.1,),
            ("own noise", 1.0): (0.1,),
            ("without privacy", None): (0.003, 0.001, 0.01, 0.0003),
        },
        "adamw",
        IN_ROUNDS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A simulated study.

    Attributes:
        epsilon: Of each site; None: neither clip nor noise, the recipe's plain twin.
        noise: `own` or `shared` by the sites; `none` without privacy.
        rate: The learning rate.
        optimizer: At the sites.
        times: Its batches over the recipe's, in expected size.
    """

    epsilon: float | None
    noise: str
    rate: float
    optimizer: str = "sgd"
    times: int = 1

    def recipe(self, study: Study, files: Sequence[str], seed: int) -> Recipe:
        """The study's recipe with this method; `files` states the data."""
        path = SIMULATIONS / study.recipe
        stated = [*study.fields, *files, f"study.seed={seed}"]
        if self.times != 1:
            size = read_recipe(path, study.fields).training.expected_batch_size
            stated.append(f"training.expected_batch_size={self.times * size}")
        stated.append(f"training.optimizer={self.optimizer}")
        if self.optimizer != "sgd":  # a site's own optimizer needs steps of its own
            stated.append("training.mode=local-steps")
        if self.epsilon is None:
            stated.append(f"training.plain_learning_rate={self.rate}")
            return plain_twin(read_recipe(path, stated))
        who = "shared" if self.noise == "shared" else "site"
        stated += [f"training.learning_rate={self.rate}", f"privacy.noise={who}"]
        return read_recipe(path, [*stated, f"privacy.epsilon={self.epsilon}"])


# Rows, in the order in which they run: if time ends, the goal's ε is there.
NOISE = {
    "shared noise": "shared",
    "without privacy": "none",
    "shared noise, larger batches": "shared",
    "without privacy, larger batches": "none",
    "own noise": "own",
}
CASES: tuple[Case, ...] = tuple(
    (row, epsilon)
    for epsilons in ((8.0, None), (1.0,))
    for row, noise in NOISE.items()
    for epsilon in epsilons
    if (epsilon is None) == (noise == "none")
)


def methods(study: Study, case: Case) -> list[Lora]:
    """What a row is chosen from at an ε; nothing if the study does not have the row."""
    row, epsilon = case
    optimizer = study.plain_optimizer if epsilon is None else "sgd"
    times = 2 if row.endswith("larger batches") else 1
    return [
        Lora(epsilon=epsilon, noise=NOISE[row], rate=rate, optimizer=optimizer, times=times)
        for rate in study.rates.get(case, ())
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for files with the splits")
    parser.add_argument("--study", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--rows", nargs="*", default=list(NOISE), choices=list(NOISE))
    parser.add_argument("--epsilons", nargs="*", type=float, help="of private rows; by default all")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), choices=list(SEEDS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(words)
    store = Store(given.results)
    if given.table:
        print(lora_tables(store.rows))
        return
    if given.data is None or given.cache is None:
        parser.error("--data and --cache are needed to run; --table prints what was run")
    for name in given.study:
        study = STUDIES[name]
        files = splits(study, given.data, given.cache)
        for seed in given.seeds:  # if time ends, each row has its first seed
            for row, epsilon in CASES:
                is_asked = given.epsilons is None or epsilon is None or epsilon in given.epsilons
                if row in given.rows and is_asked:
                    run_case(store, study, (row, epsilon), files, seed)


def run_case(store: Store, study: Study, case: Case, files: Files, seed: int) -> None:
    """Runs what is missing of a case: every rate on validation at seed 0, the best one on test."""
    about = {"data": study.data, "row": case[0]}

    def run(method: Lora, part: str, at: int) -> Row:
        named = {**about, "split": part, **settings(method), "seed": at}
        if not store.has(named):
            came = outcomes(method.recipe(study, files[part], at), study.metric)
            # A run without a validation set has the part's records as its test set.
            for split, outcome in came.items() if "validation" in came else [(part, came["test"])]:
                if not store.has({**named, "split": split}):
                    store.append({**named, "split": split}, outcome)
        return where(store.rows, **named)[0]

    found = methods(study, case)
    if not found:
        return
    if len(found) > 1:
        found.sort(key=lambda method: -score(run(method, "validation", SEEDS[0])))
    run(found[0], "test", seed)


def outcomes(recipe: Recipe, metric: str) -> dict[str, dict[str, float]]:
    """Runs a recipe in a folder that is thrown away: scores on test and, if it has one, validation.

    Returns:
        By set: the score, that of round 0 on the test set, and minutes.
    """
    started, scores = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", recipe)
        events = Events(on_round=lambda report: scores.update(report.metrics))
        found = simulate(recipe, run, events=events, workers=1)
    others = {
        "untrained": round(found.untrained[metric] or 0.0, 6),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    return {name: {metric: round(of_set[metric], 6), **others} for name, of_set in scores.items()}


def splits(study: Study, data: Path, cache: Path) -> Files:
    """Fields that name files to choose on (`validation`) and to report (`test`).

    With a validation file one run is for both. Otherwise a tenth of the training records is set
    apart to choose on, as in `sets.split`; lines keep what else they say, such as their site.
    """
    train, valid, test = (data / study.data / f"{part}.jsonl" for part in PARTS)
    folder, fit = cache / "splits" / study.data, train
    folder.mkdir(parents=True, exist_ok=True)
    has_file = valid.exists()
    if not has_file:
        lines = train.read_text(encoding="utf-8").splitlines(keepends=True)
        order = np.random.default_rng(0).permutation(len(lines)).tolist()
        held = round(HELD_OUT * len(lines))
        fit, valid = folder / "fit.jsonl", folder / "valid.jsonl"
        for file, places in ((fit, order[held:]), (valid, order[:held])):
            file.write_text("".join(lines[at] for at in sorted(places)), encoding="utf-8")
    if study.tested is not None:
        valid = some(valid, study.tested // 2, folder / "some-valid.jsonl")
        test = some(test, study.tested, folder / "some-test.jsonl")
    if has_file:
        both = [f"data.train={train}", f"data.validation={valid}", f"data.test={test}"]
        return {"validation": both, "test": both}
    return {
        "validation": [f"data.train={fit}", f"data.test={valid}"],
        "test": [f"data.train={train}", f"data.test={test}"],
    }


def some(file: Path, records: int, found: Path) -> Path:
    """Writes so many of a file's lines, at random and the same each time, and says where."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    order = np.random.default_rng(0).permutation(len(lines))[:records]
    found.write_text("".join(lines[at] for at in sorted(order.tolist())), encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
