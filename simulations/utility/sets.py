"""The data sets of the grid: sites, language, how they are split, and the bases that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from features import Features, Reading, labelled, vectors
from numpy.typing import NDArray

from cloister.models.center import STEP, TEXTS, Language

# Of the training records, where there is no validation file.
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set of labelled texts.

    Attributes:
        sites: Five, unless the records say where they are from.
        language: Of its texts, and of the built-in sentences whose mean is the centre.
        names: What a label is called for the zero-shot baseline; absent: the label itself.
    """

    sites: int = 5
    language: Language = "english"
    names: tuple[tuple[str, str], ...] = ()


GOOD_OR_BAD = (("negative", "差评"), ("positive", "好评"))
SETS = {
    "rt_polarity": DataSet(),
    "banking77": DataSet(),
    "product_sentiment": DataSet(sites=14),  # a product each
    "zh_takeaway": DataSet(language="chinese", names=GOOD_OR_BAD),
    "zh_shopping": DataSet(sites=10, language="chinese", names=GOOD_OR_BAD),  # a category each
}

# Layers as in simulations/README.md. multilingual-e5-small was trained on texts with this prefix.
BASES = {
    "MiniLM": Reading("sentence-transformers/all-MiniLM-L6-v2"),
    "e5": Reading("intfloat/multilingual-e5-small", 11, "query: {text}"),
    "SmolLM2": Reading("HuggingFaceTB/SmolLM2-135M-Instruct", 18),
    "Gemma": Reading("google/gemma-3-270m", 11),
}
# The pairs of data set and base; the first base of a set is its usual one.
PAIRS = (
    ("rt_polarity", "MiniLM"),
    ("banking77", "MiniLM"),
    ("product_sentiment", "MiniLM"),
    ("zh_takeaway", "e5"),
    ("zh_shopping", "e5"),
    ("rt_polarity", "SmolLM2"),
    ("rt_polarity", "Gemma"),
)
# Pairs of which only so many training records are read, and a quarter as many to choose settings: a
# language model reads 10,000 sentences in ten minutes of a core. The test set is whole.
SAMPLED = {("rt_polarity", "SmolLM2"): 2000, ("rt_polarity", "Gemma"): 2000}


class Part(NamedTuple):
    """Texts and class numbers [n]."""

    texts: list[str]
    labels: NDArray[np.int64]

    def at(self, places: Sequence[int]) -> Part:
        """The records at these places."""
        return Part([self.texts[place] for place in places], self.labels[list(places)])


class Split(NamedTuple):
    """Settings are chosen by training on `fit` and scoring `valid`; then `train` and `test`."""

    classes: list[str]
    fit: Part
    valid: Part
    train: Part
    test: Part


def split(data: Path, name: str, records: int | None = None) -> Split:
    """Reads a data set: its validation file, or a tenth of the training records at random.

    Args:
        data: The folder with a folder of each data set.
        name: The data set's.
        records: How many training records, at random, and a quarter as many of the validation
            file; None: all.
    """
    rows = labelled(data / name / "train.jsonl")
    classes = sorted({label for _, label in rows})

    def part(found: list[tuple[str, str]]) -> Part:
        numbers = np.array([classes.index(label) for _, label in found])
        return Part([text for text, _ in found], numbers)

    train, test = part(rows), part(labelled(data / name / "test.jsonl"))
    file = data / name / "valid.jsonl"
    if file.exists():
        valid = part(labelled(file))
        if records is not None:
            train, valid = sample(train, records), sample(valid, records // 4)
        return Split(classes, train, valid, train, test)
    if records is not None:
        train = sample(train, records)
    order = np.random.default_rng(0).permutation(len(train.texts)).tolist()
    held = round(HELD_OUT * len(train.texts))
    fit, valid = train.at(sorted(order[held:])), train.at(sorted(order[:held]))
    return Split(classes, fit, valid, train, test)


def sample(part: Part, records: int) -> Part:
    """So many records at random, the same each time; all, if there are fewer."""
    order = np.random.default_rng(0).permutation(len(part.texts))
    return part.at(sorted(order[:records].tolist()))


class Pair(NamedTuple):
    """A data set in a base's vectors.

    Attributes:
        search: To choose settings: its test part is the validation split.
        final: To report.
        center: The mean vector of the built-in sentences, [H].
        names: Vectors of the classes' names, [C, H].
    """

    search: Features
    final: Features
    center: NDArray[np.float32]
    names: NDArray[np.float32]


def pair(data: Path, name: str, base: str, folder: str | None, cache: Path) -> Pair:
    """Returns a data set's vectors by a base, from the cache if they are there.

    Args:
        data: The folder with a folder of each data set.
        name: The data set's.
        base: One of `BASES`.
        folder: Where the base is; None: as its hub id says.
        cache: A folder for the vectors.
    """
    reading, about = BASES[base], SETS[name]
    found = split(data, name, SAMPLED.get((name, base)))
    if folder is not None:
        reading = reading._replace(base=folder)
    train = vectors(found.train.texts, reading, cache)
    test = vectors(found.test.texts, reading, cache)
    place = {text: number for number, text in enumerate(found.train.texts)}
    if found.fit is found.train:
        fit, valid = train, vectors(found.valid.texts, reading, cache)
    else:
        fit = train[[place[text] for text in found.fit.texts]]
        valid = train[[place[text] for text in found.valid.texts]]
    sentences = vectors(TEXTS[about.language], reading, cache).mean(axis=0)
    called = dict(about.names)
    words = [called.get(label, label.replace("_", " ")) for label in found.classes]
    return Pair(
        search=Features(fit, found.fit.labels, valid, found.valid.labels),
        final=Features(train, found.train.labels, test, found.test.labels),
        center=(np.round(sentences / STEP) * STEP).astype(np.float32),
        names=vectors(words, reading, cache),
    )
