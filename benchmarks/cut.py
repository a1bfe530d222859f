"""Padded ÷ real tokens of private passes: how much of Poisson batches is padding or dummies.

Counts only; nothing is computed. `python -m benchmarks.cut --texts FILE.jsonl`, records with text
and label.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from benchmarks.figure import Figure
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.models.base import find_base, load_tokenizer
from cloister.models.config import ModelConfig
from cloister.training.shapes import BatchShapes, candidates, cut

# Longest record of the studies in simulations/, tokens of a pass on a CPU, drawn batches.
LONGEST, TOKENS, BATCHES = 64, 2048, 50


def padded(lengths: Sequence[int], shapes: BatchShapes) -> int:
    """Returns the tokens of a batch's passes, padding and dummies counted."""
    total = 0
    by_edge: dict[int, list[bool]] = {}
    for length in lengths:
        edge = shapes.edge(length)
        by_edge.setdefault(edge, []).append(length == edge)
    for edge, full in by_edge.items():
        total += sum(rows * edge for rows, _ in cut(full, shapes.rows(edge), edge))
    return total


def lengths_of(texts: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the number of tokens of each record, cut to `LONGEST`."""
    records = load(texts, "train", "text", DataConfig(test=None))
    words = [record.text for record in records if isinstance(record, TextRecord)]
    return [min(len(ids), LONGEST) for ids in tokenizer(words, verbose=False)["input_ids"]]


def ratios(lengths: Sequence[int], shapes: BatchShapes) -> Iterator[tuple[int, float]]:
    """Yields expected batch size, and padded ÷ real tokens over the drawn batches."""
    known, rng = np.array(lengths), np.random.default_rng(0)
    for size in (64, 300, 1200):
        real = whole = 0
        for _ in range(BATCHES):
            drawn = known[rng.random(len(known)) < size / len(known)]
            real += int(drawn.sum())
            whole += padded([int(length) for length in drawn], shapes)
        yield size, whole / real


def figures(texts: str) -> Iterator[Figure]:
    """Yields the ratios of two batch sizes, for records with text and label."""
    tokenizer = load_tokenizer(find_base(ModelConfig().base))
    bounds = {64: 1.3, 300: 1.15}
    for size, ratio in ratios(lengths_of(texts, tokenizer), candidates(LONGEST, TOKENS)):
        if size in bounds:
            yield Figure(f"padded ÷ real tokens, batches of {size}", ratio, bounds[size], "at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", nargs="+", default=["synthetic:hospitals"])
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(find_base(ModelConfig().base))
    for texts in arguments.texts:
        lengths = lengths_of(texts, tokenizer)
        for size, ratio in ratios(lengths, candidates(LONGEST, TOKENS)):
            print(f"{texts}, batches of {size}: {ratio:.2f} padded ÷ real tokens")


if __name__ == "__main__":
    main()
