"""A frozen base's states of the words of sentences with tags, computed once and kept in a folder.

A word is read where the token task reads it: at its first piece (`cloister.tasks.token`). Words
that are cut, or for which the tokenizer gives no token, have no state and are tagged O.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from features import Reading
from numpy.typing import NDArray

from cloister.data.records import TokenRecord
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE
from cloister.tasks.token import spans_of
from cloister.training.workspace import open_workspace

# Sentences of a pass, and the longest in tokens, as in simulations/disease_entities.toml.
ROWS, LENGTH = 32, 128
# The entity types of the data sets here, and their tags in the order of a head's outputs.
TYPES, TAGS = ("Disease",), ("O", "B-Disease", "I-Disease")


class Sentences(NamedTuple):
    """Sentences of words with tags, and the states of the words that a base reads.

    Attributes:
        words: Of each sentence.
        tags: Of each word of each sentence.
        states: [N, H], of the words that are read, sentence after sentence.
        places: [N], each such word's place in its sentence.
        ends: [n], how many of the N words each sentence and those before it have.
    """

    words: list[list[str]]
    tags: list[list[str]]
    states: NDArray[np.float32]
    places: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many words of each sentence are read, [n]."""
        return np.diff(self.ends, prepend=0)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The tags of the words that are read, as places in `TAGS`, [N]."""
        owners = np.repeat(np.arange(len(self.ends)), self.counts)
        found = [
            TAGS.index(self.tags[owner][place])
            for owner, place in zip(owners, self.places, strict=True)
        ]
        return np.array(found, np.int64)

    def tagged(self, labels: NDArray[np.int64]) -> list[list[str]]:
        """Tags of every word of every sentence, of labels [N]; O where a word is not read."""
        found = []
        for tags, end, count in zip(self.tags, self.ends, self.counts, strict=True):
            row = ["O"] * len(tags)
            for at in range(end - count, end):
                row[self.places[at]] = TAGS[labels[at]]
            found.append(row)
        return found


def entity_counts(found: Sequence[list[str]], true: Sequence[list[str]]) -> NDArray[np.uint8]:
    """Entities of each sentence, [n, 3]: found and true, found, true."""
    rows = []
    for ours, theirs in zip(found, true, strict=True):
        one, other = set(spans_of(ours)), set(spans_of(theirs))
        rows.append((len(one & other), len(one), len(other)))
    return np.array(rows, np.uint8)


def f1(counts: NDArray[np.uint8]) -> float:
    """Micro-averaged F1 of whole entities, of counts [n, 3]; 0 if there are none."""
    both, found, true = counts.sum(axis=0, dtype=np.int64).tolist()
    return 2 * both / max(found + true, 1)


def sentences(path: Path, reading: Reading | None, cache: Path) -> Sentences:
    """Returns a file's sentences, with states from the cache if they are there.

    Args:
        path: JSON lines with `tokens` and `tags`.
        reading: The base, with the layer that is the last; None: no base, and no states.
        cache: A folder for the states. A file's name says base and layers, and has a hash of the
            words, so other sentences never get its states.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    words, tags = [row["tokens"] for row in rows], [row["tags"] for row in rows]
    if reading is None:
        places = np.concatenate([np.arange(len(row)) for row in words])
        ends = np.cumsum([len(row) for row in words])
        return Sentences(words, tags, np.empty((len(places), 0), np.float32), places, ends)
    content = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    base = reading.base.strip("/").replace("/", "+")
    kept = cache / f"words.{base}.{reading.layers or 'all'}.{content}.npz"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        whole = kept.with_suffix(".part.npz")  # a file of that name alone is whole
        np.savez(whole, **_computed(words, reading))
        whole.replace(kept)
    with np.load(kept) as found:
        states = found["states"].astype(np.float32)
        return Sentences(words, tags, states, found["places"], found["ends"])


def _computed(words: Sequence[list[str]], reading: Reading) -> dict[str, NDArray[np.generic]]:
    """States [N, H] in float16, places [N] and ends [n]; see `Sentences`."""
    shape = TaskConfig(kind="token-classification", labels=TYPES, max_length=LENGTH)
    model = ModelConfig(base=reading.base, layers=reading.layers)
    workspace = open_workspace(model, LoraConfig(train="none"), shape, TYPES, 0)
    network, task = workspace.network, workspace.task
    examples = [task.encode(TokenRecord(tuple(row), ("O",) * len(row))) for row in words]
    order = sorted(range(len(words)), key=lambda at: len(examples[at].input_ids))
    states: list[NDArray[np.float16]] = [np.empty(0, np.float16)] * len(words)
    with torch.no_grad():
        for first in range(0, len(order), ROWS):
            part = order[first : first + ROWS]
            rows = network.pooled(task.collate([examples[at] for at in part])).numpy()
            for at, row in zip(part, rows, strict=True):
                target = examples[at].target
                assert isinstance(target, tuple)
                firsts = [place for place, value in enumerate(target) if value != IGNORE]
                states[at] = row[firsts].astype(np.float16)
    return {
        "states": np.concatenate(states),
        "places": np.concatenate([np.array(example.words, np.int64) for example in examples]),
        "ends": np.cumsum([len(row) for row in states]),
    }
