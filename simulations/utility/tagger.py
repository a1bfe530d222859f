"""A private linear head on a frozen base's states of words, emulated; `entities.py` runs it.

What differs from `emulate.py` is what a record is: a sentence. Its loss is the mean cross-entropy
of its words, each times the weight of its tag, as in `cloister.tasks.token`; its gradient, of all
its words, is clipped as one. Nothing else differs: noise, rounds, rate and momentum are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from emulate import Matrix, Setting, noise_of_sum, rate_at, with_bias
from numpy.typing import NDArray
from scipy.sparse import csr_array
from words import TAGS, Sentences

Labels = NDArray[np.int64]


class Tagging(NamedTuple):
    """Sentences to train on and sentences to score; a validation file while settings are chosen."""

    train: Sentences
    test: Sentences
    sites: int


@dataclass(frozen=True, kw_only=True)
class Tagger:
    """A linear head, trained by rounds of clipped gradients of sentences.

    Attributes:
        epsilon: Of each site; None: neither noise nor privacy, but the clip bound stays.
        noise: `own` or `shared` by sites, or `central`: all records are in one place.
        clip: The clip bound C.
        product: η C.
        weight: Of the tags of entities; O has 1 (`task.class_weights`).
        momentum: Of the server.
    """

    epsilon: float | None
    noise: str = "shared"
    clip: float
    product: float
    weight: float = 1.0
    momentum: float = 0.5
    rounds: int = 30
    sample_rate: float = 0.25

    def labels(self, task: Tagging, seed: int) -> Labels:
        """Trains, and gives the labels [N] of the words to score."""
        setting = Setting(
            epsilon=math.inf if self.epsilon is None else self.epsilon,
            noise=self.noise,
            clip=self.clip,
            rate=self.product / self.clip,
            momentum=self.momentum,
            rounds=self.rounds,
            sites=task.sites,
            sample_rate=self.sample_rate,
        )
        head = trained(task.train, setting, self.weight, seed)
        scores = task.test.states @ head[:, :-1].T + head[:, -1]
        return np.asarray(scores.argmax(axis=1), np.int64)


def trained(found: Sentences, setting: Setting, weight: float, seed: int) -> Matrix:
    """The head [C, H + 1] after the last round.

    Args:
        found: What it is trained on.
        setting: How.
        weight: Of the tags of entities.
        seed: Of batches and noise.
    """
    rng = np.random.default_rng(seed)
    rows, labels = with_bias(found.states), found.labels
    weights = np.where(labels == 0, 1.0, weight)
    head = np.zeros((len(TAGS), rows.shape[1]), np.float32)
    momentum = np.zeros_like(head)
    batch = setting.sample_rate * len(found.ends)
    deviation = noise_of_sum(setting) / batch
    for step in range(setting.rounds):
        drawn = rng.random(len(found.ends)) < setting.sample_rate
        own = np.repeat(drawn, found.counts)
        gradients = sentence_gradients(
            head, rows[own], labels[own], weights[own], found.counts[drawn]
        )
        norms = np.sqrt(np.einsum("ich,ich->i", gradients, gradients))
        kept = np.minimum(1, setting.clip / np.maximum(norms, 1e-12)).astype(np.float32)
        mean = np.tensordot(kept, gradients, axes=1) / np.float32(batch)
        mean += deviation * rng.standard_normal(head.shape, dtype=np.float32)
        momentum = setting.momentum * momentum - rate_at(setting, step) * mean
        head = head + momentum.astype(np.float32)
    return head


def sentence_gradients(
    head: Matrix,
    rows: Matrix,
    labels: Labels,
    weights: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> Matrix:
    """Each sentence's gradient of its mean weighted loss, [n, C, H + 1].

    Args:
        head: [C, H + 1].
        rows: The words' states, sentence after sentence, [N, H + 1].
        labels: Their tags, [N].
        weights: Of their losses, [N].
        counts: Words of each sentence, [n].
    """
    scores = rows @ head.T
    error = np.exp(scores - scores.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(rows)), labels] -= 1
    error *= (weights / np.repeat(counts, counts))[:, None]
    ends = np.concatenate([[0], np.cumsum(counts)])
    words = np.arange(len(rows))
    sums = [
        csr_array((column.astype(np.float32), words, ends), shape=(len(counts), len(rows))) @ rows
        for column in error.T
    ]
    return np.stack(sums, axis=1)


@dataclass(frozen=True, kw_only=True)
class WordRegression:
    """Logistic regression on the words' states, all records pooled; not private.

    Attributes:
        inverse_penalty: scikit-learn's C.
    """

    inverse_penalty: float

    def labels(self, task: Tagging, seed: int) -> Labels:
        """Fits, and gives the labels [N] of the words to score; no seed changes it."""
        from sklearn.linear_model import LogisticRegression

        center = task.train.states.mean(axis=0)
        scale = np.linalg.norm(task.train.states - center) / task.train.states.size**0.5
        model = LogisticRegression(C=self.inverse_penalty, max_iter=300, tol=1e-3)
        model.fit((task.train.states - center) / scale, task.train.labels)
        return np.asarray(model.predict((task.test.states - center) / scale), np.int64)


@dataclass(frozen=True, kw_only=True)
class WordFeatures:
    """A linear SVM on each word and its neighbours, all records pooled; no base, and not private.

    Attributes:
        inverse_penalty: scikit-learn's C.
    """

    inverse_penalty: float

    def labels(self, task: Tagging, seed: int) -> Labels:
        """Fits, and gives the labels [N] of the words to score; no seed changes it."""
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.svm import LinearSVC

        hashed = FeatureHasher(2**20, input_type="string")
        model = LinearSVC(C=self.inverse_penalty, random_state=0)
        model.fit(hashed.transform(word_features(task.train.words)), task.train.labels)
        found = model.predict(hashed.transform(word_features(task.test.words)))
        return np.asarray(found, np.int64)


def word_features(sentences: Sequence[list[str]]) -> list[list[str]]:
    """Of each word of each sentence: itself, its ends and shape, and the two words on each side."""
    found = []
    for words in sentences:
        around = ["", "", *(word.lower() for word in words), "", ""]
        for at, word in enumerate(words):
            own = around[at + 2]
            shape = "".join("A" if c.isupper() else "9" if c.isdigit() else "a" for c in word[:6])
            row = [f"w={own}", f"3={own[-3:]}", f"4={own[-4:]}", f"2={own[:3]}", f"s={shape}"]
            row += [f"{side}={around[at + 2 + side]}" for side in (-2, -1, 1, 2)]
            row += [f"b={around[at + 1]} {own}", f"a={own} {around[at + 3]}"]
            found.append(row)
    return found


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Always the most frequent tag, O: it finds no entity."""

    def labels(self, task: Tagging, seed: int) -> Labels:
        """O for each word."""
        return np.zeros(len(task.test.places), np.int64)
