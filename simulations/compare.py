"""A recipe beside what it must be compared with, over several seeds.

    python simulations/compare.py simulations/movie_reviews.toml --seeds 3 \
        --set data.train=train.jsonl --set data.test=test.jsonl

Prints one Markdown table row a run kind: the recipe, the private probe (the head alone, at the same
ε), the plain twin, and for texts TF-IDF with a linear SVM on all records pooled; for people's items
rankings by popularity and by TF-IDF. `--plain` changes fields of the twin alone, which without
clipping wants another optimizer:

    --plain training.optimizer=adamw

Nobody tunes the twin, and the table says so: its score is a lower bound of what training without
privacy reaches, and the gap to it a lower bound of the price of privacy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloister.data.catalogue import read_catalogue
from cloister.data.guess import is_spaceless
from cloister.data.load import load
from cloister.data.records import ItemsRecord, TextRecord
from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.result import RunResult
from cloister.simulation.run import simulate
from cloister.simulation.twin import plain_twin
from cloister.tasks.config import LAST_ITEMS
from cloister.tasks.ranking import SHOWN as LIST
from cloister.tasks.ranking import rank_scores, ranks_of, without_seen

Variant = Callable[[list[str]], Recipe]

# What the table calls a run kind, where that says more than its name for `--only`.
SHOWN = {"plain twin": "plain twin, untuned"}


def variants(path: Path, plain_only: list[str]) -> dict[str, Variant]:
    """The runs that a recipe is compared with."""

    def private(assignments: list[str]) -> Recipe:
        return read_recipe(path, assignments)

    def probe(assignments: list[str]) -> Recipe:
        head = ["lora.train=none", "training.probe_rounds=0"]
        return read_recipe(path, [*assignments, *head])

    def plain(assignments: list[str]) -> Recipe:
        return plain_twin(read_recipe(path, [*assignments, *plain_only]))

    chosen: dict[str, Variant] = {"recipe": private, "plain twin": plain}
    if read_recipe(path).task.kind != "causal-lm":
        chosen["private probe"] = probe
    return chosen


def run(recipe: Recipe) -> tuple[RunResult, float]:
    """One run in a folder that is thrown away, and its minutes."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(recipe, RunDirectory.create(Path(folder) / "run", recipe))
    return result, (time.monotonic() - started) / 60


def tf_idf(recipe: Recipe) -> float:
    """Accuracy of TF-IDF with a linear SVM on all records pooled."""
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    data = recipe.data
    sets = [load(data.train, "train", "text", data), load(data.test or "", "test", "text", data)]
    texts = [[r for r in records if isinstance(r, TextRecord)] for records in sets]
    model = make_pipeline(vectorizer([r.text for r in texts[0]]), LinearSVC())
    model.fit([r.text for r in texts[0]], [r.label for r in texts[0]])
    return float(model.score([r.text for r in texts[1]], [r.label for r in texts[1]]))


def item_baselines(recipe: Recipe) -> dict[str, float]:
    """NDCG of rankings that learn nothing of what follows what, by what they are made of."""
    task, data = recipe.task, recipe.data
    catalogue = read_catalogue(task.items or "", task.items_sha256)
    place = {item: number for number, item in enumerate(catalogue.ids)}
    train, test = (
        [
            [place[item] for item in dict.fromkeys(record.items)]
            for record in load(source, split, "items", data)
            if isinstance(record, ItemsRecord)
        ]
        for source, split in ((data.train, "train"), (data.test or data.train, "test"))
    )
    texts = vectorizer(list(catalogue.texts)).fit_transform(catalogue.texts)
    bought = np.bincount([item for items in train for item in items], minlength=len(place))
    coming = np.bincount([items[-1] for items in test], minlength=len(place))
    last = task.last_items or LAST_ITEMS

    def alike(before: list[int]) -> np.ndarray:
        return np.asarray((texts[before[-last:]] @ texts.T).sum(axis=0)).ravel()

    return {
        "TF-IDF of the last items' texts": ndcg(test, alike),
        "most frequent in training, pooled, not private": ndcg(test, lambda _: bought),
        "most frequent next items of the test set itself": ndcg(test, lambda _: coming),
    }


def ndcg(test: list[list[int]], scores: Callable[[list[int]], np.ndarray]) -> float:
    """NDCG of the first ten, of a function of what each person had before the last item."""
    ranks: list[float] = []
    for *before, target in test:
        row = torch.tensor(scores(before)[None], dtype=torch.float64)
        ranks += ranks_of(without_seen(row, [before]), torch.tensor([target]))
    return rank_scores(ranks)[f"ndcg@{LIST}"]


def vectorizer(texts: list[str]) -> Any:
    """TF-IDF of words and pairs; of one to three characters where texts have no blanks.

    Split by blanks, a Chinese sentence is one word, which no other sentence has.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if is_spaceless(texts):
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)


def row(study: str, name: str, runs: list[tuple[RunResult, float]]) -> str:
    """A table row over the seeds so far."""
    metric = runs[0][0].metric
    scores = [result.test[metric] for result, _ in runs]
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    epsilon = max(site.epsilon for result, _ in runs for site in result.sites)
    minutes = statistics.mean(minutes for _, minutes in runs)
    return (
        f"| {study} | {SHOWN.get(name, name)} | {epsilon:.2f} | "
        f"{metric} {statistics.mean(scores):.4f}{spread} | {len(scores)} | {minutes:.1f} |"
    )


def main() -> None:
    """Runs everything and prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--plain", action="append", default=[], help="fields of the twin alone")
    parser.add_argument("--only", action="append", default=[], help="run kinds; absent: all")
    arguments = parser.parse_args()
    base = read_recipe(arguments.recipe, arguments.assignments)
    chosen = variants(arguments.recipe, arguments.plain)
    results: dict[str, list[tuple[RunResult, float]]] = {name: [] for name in chosen}
    for seed in range(arguments.seeds):
        for name, variant in chosen.items():
            if not arguments.only or name in arguments.only:
                recipe = variant([*arguments.assignments, f"study.seed={seed}"])
                results[name].append(run(recipe))
                print(row(base.study.name, name, results[name]), flush=True)
    if base.task.kind == "sequence-classification" and not arguments.only:
        print(
            f"| {base.study.name} | TF-IDF + linear SVM, pooled | ∞ | accuracy "
            f"{tf_idf(base):.4f} | 1 | |"
        )
    if base.task.kind == "recommendation":
        for name, score in item_baselines(base).items():
            print(f"| {base.study.name} | {name} | – | ndcg@{LIST} {score:.4f} | 1 | |")


if __name__ == "__main__":
    main()
