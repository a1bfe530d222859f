"""What the grid compares: each method is a value that says all of its settings, and gives the
classes of a data set's test part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from emulate import RATE, ROUNDS, Matrix, Setting, iterates, noise_of_sum, predicted, public_head
from features import Features
from numpy.typing import NDArray
from sets import Part

from cloister.data.guess import is_spaceless
from cloister.models.center import STEP
from cloister.recipe.head_defaults import CLIP, HIDDEN, LOGIT_NOISE, MOMENTUM
from cloister.recipe.rate_by_noise import SCHEDULES

Classes = NDArray[np.int64]
# Plain steps on public records before round 1: `training.public_steps`, and a rate that was fixed
# before these tables (`compare.py`).
PUBLIC_STEPS, PUBLIC_RATE = 200, 0.1


class Task(NamedTuple):
    """A data set to train on and one to score.

    Attributes:
        train: Texts to train on.
        test: Texts to score; a validation split while settings are chosen.
        sites: The number of sites.
        found: Both in a base's vectors; None: no base reads them.
        center: The mean vector of built-in sentences, [H].
        names: Vectors of the classes' names, [C, H].
    """

    train: Part
    test: Part
    sites: int
    found: Features | None = None
    center: Matrix | None = None
    names: Matrix | None = None

    @property
    def vectors(self) -> Features:
        """The base's vectors, which a method with a base needs."""
        if self.found is None:
            raise ValueError("this method needs a base's vectors; the data set has none")
        return self.found


class Method(Protocol):
    """A method; its fields are its settings."""

    def classes(self, task: Task, seed: int) -> Classes:
        """Class numbers [n] of the test part."""
        ...


@dataclass(frozen=True, kw_only=True)
class Head:
    """A linear head, trained by rounds of clipped gradients.

    Attributes:
        epsilon: Of each site; None: neither noise nor privacy, but the clip bound stays.
        noise: `own` or `shared` by sites, or `central`: all records are in one place.
        clip: The clip bound C.
        product: η C; None: the rate follows from the noise.
        of_rule: The rate in parts of the one that follows from the noise
            (`cloister.recipe.head_defaults`); None: `product` states it.
        center: What is subtracted from vectors: the mean of built-in sentences (`built-in`), or of
            the public records (`public`).
        public: How many training records are public. No site has them, and plain steps on them
            start the head.
    """

    epsilon: float | None
    noise: str = "shared"
    clip: float = CLIP
    product: float | None = None
    of_rule: float | None = None
    center: str | None = None
    public: int = 0
    rounds: int = ROUNDS
    sample_rate: float = RATE

    def classes(self, task: Task, seed: int) -> Classes:
        """Trains, and classifies the test part."""
        found, start = self._sites_and_start(task, seed)
        weight = iterates(found, self.setting(task.sites, len(found.train)), seed, start)[-1][0]
        return predicted(found, weight)

    def setting(self, sites: int, records: int) -> Setting:
        """The emulation's setting for so many records of all sites together."""
        setting = Setting(
            epsilon=math.inf if self.epsilon is None else self.epsilon,
            noise=self.noise,
            clip=self.clip,
            rate=1.0,
            momentum=MOMENTUM,
            rounds=self.rounds,
            sites=sites,
            sample_rate=self.sample_rate,
        )
        if self.product is not None:
            return replace(setting, rate=self.product / self.clip)
        if self.of_rule is None:
            raise ValueError("a head needs product or of_rule; neither is given")
        return replace(setting, rate=self.of_rule * rule(setting, records))

    def _sites_and_start(self, task: Task, seed: int) -> tuple[Features, Matrix | None]:
        found = task.vectors
        order = np.random.default_rng(seed).permutation(len(found.train))
        shown, kept = order[: self.public], order[self.public :]
        center = task.center if self.center == "built-in" else None
        if self.center == "public":
            center = np.round(found.train[shown].mean(axis=0) / STEP) * STEP
        if center is not None:
            found = found._replace(train=found.train - center, test=found.test - center)
        if not self.public:
            return found, None
        labels = found.train_labels
        open_ones = found._replace(train=found.train[shown], train_labels=labels[shown])
        sites = found._replace(train=found.train[kept], train_labels=labels[kept])
        return sites, public_head(open_ones, PUBLIC_STEPS, PUBLIC_RATE, seed)


def rule(setting: Setting, records: int) -> float:
    """The rate that the project gives a head that states none (`head_rate`), to two digits."""
    deviation = noise_of_sum(setting) / (setting.sample_rate * records)
    rounds = SCHEDULES["warmup-linear"] * setting.rounds
    rate = LOGIT_NOISE * (1 - setting.momentum) / (deviation * math.sqrt(rounds * HIDDEN))
    return float(f"{rate:.2g}")


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Logistic regression on the base's vectors, to convergence, all records pooled.

    Attributes:
        inverse_penalty: scikit-learn's C.
    """

    inverse_penalty: float

    def classes(self, task: Task, seed: int) -> Classes:
        """Fits, and classifies the test part; no seed changes it."""
        from sklearn.linear_model import LogisticRegression

        found = task.vectors
        model = LogisticRegression(C=self.inverse_penalty, max_iter=300, tol=1e-3)
        model.fit(found.train, found.train_labels)
        return np.asarray(model.predict(found.test), np.int64)


@dataclass(frozen=True, kw_only=True)
class Words:
    """TF-IDF of words and pairs (characters, up to three, where texts have no blanks) with a linear
    SVM, all records pooled.

    Attributes:
        inverse_penalty: scikit-learn's C.
    """

    inverse_penalty: float

    def classes(self, task: Task, seed: int) -> Classes:
        """Fits, and classifies the test part; no seed changes it."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

        by_letters = is_spaceless(task.train.texts)
        shape = {"analyzer": "char", "ngram_range": (1, 3)} if by_letters else {}
        words = TfidfVectorizer(**{"ngram_range": (1, 2), "sublinear_tf": True, **shape})
        model = LinearSVC(C=self.inverse_penalty, random_state=0)
        model.fit(words.fit_transform(task.train.texts), task.train.labels)
        return np.asarray(model.predict(words.transform(task.test.texts)), np.int64)


@dataclass(frozen=True, kw_only=True)
class Names:
    """Zero-shot: the class whose name has the most similar vector (cosine), with what all texts
    share taken off. Nothing is trained and no record is used."""

    def classes(self, task: Task, seed: int) -> Classes:
        """Classifies the test part."""
        if task.names is None or task.center is None:
            raise ValueError("zero-shot needs the vectors of the classes' names and a centre")
        names = task.names - task.center
        names = names / np.linalg.norm(names, axis=1, keepdims=True)
        scores = (task.vectors.test - task.center) @ names.T
        return np.asarray(scores.argmax(axis=1), np.int64)


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Always the most frequent class of the training records; it is not private."""

    def classes(self, task: Task, seed: int) -> Classes:
        """The same class for each test record."""
        return np.full(len(task.test.texts), np.bincount(task.train.labels).argmax(), np.int64)
