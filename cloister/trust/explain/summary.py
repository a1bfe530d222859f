"""Summarizes explanations over all inputs: each method's faithfulness, and the strongest words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.trust.explain.explained import Explained, MethodResult
from cloister.trust.intervals import Interval, mean

# Number of words that a summary lists for each answer, for and against it.
MOST_WORDS = 12


@dataclass(frozen=True)
class MethodScore:
    """The scores of a method over all answers.

    Attributes:
        method: The method's name.
        answers: Number of answers that it explained.
        deletion: Mean deletion area, from 0 to 1; small is good.
        insertion: Mean insertion area, from 0 to 1; large is good.
        random_deletion: Mean deletion area of random orders.
        random_insertion: Mean insertion area of random orders.
        gain: Mean gain over random orders, with its interval over answers.
        worst_gap: Largest gap of completeness, as a part of the figure's difference from the blank
            input; None: the method promises no completeness.
    """

    method: str
    answers: int
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    gain: Interval
    worst_gap: float | None


@dataclass(frozen=True)
class Word:
    """A word's contribution to one kind of answer.

    Attributes:
        word: The word in lower case.
        value: Its mean contribution.
        count: Number of its occurrences in inputs with that answer.
    """

    word: str
    value: float
    count: int


def method_scores(explained: Sequence[Explained], seed: int) -> list[MethodScore]:
    """Returns the scores of every method that explained an answer, in the methods' order.

    Args:
        explained: The inputs with their explanations.
        seed: The seed of the intervals.
    """
    found: dict[str, list[tuple[MethodResult, float]]] = defaultdict(list)
    for answer in (answer for one in explained for answer in one.answers):
        for name, method in answer.methods.items():
            found[name].append((method, answer.figure - answer.blank))
    scores = []
    for name, methods in found.items():
        each = [method.faithfulness for method, _ in methods]
        gain = mean(np.array([one.gain for one in each]), np.random.default_rng(seed))
        assert gain is not None  # a method is listed with its first answer
        gaps = [
            abs(method.attribution.gap) / max(abs(difference), 1.0)
            for method, difference in methods
            if method.attribution.gap is not None
        ]
        scores.append(
            MethodScore(
                method=name,
                answers=len(each),
                deletion=float(np.mean([one.deletion for one in each])),
                insertion=float(np.mean([one.insertion for one in each])),
                random_deletion=float(np.mean([one.random_deletion for one in each])),
                random_insertion=float(np.mean([one.random_insertion for one in each])),
                gain=gain,
                worst_gap=max(gaps) if gaps else None,
            )
        )
    return scores


def telling_words(explained: Sequence[Explained], method: str) -> dict[str, list[Word]]:
    """Returns, by kind of answer, the words with the largest mean contributions, for and against.

    Args:
        explained: The inputs; with few inputs a word's mean may come from a single text.
        method: A method whose values have a sign.

    Returns:
        The largest first, then the smallest; words without a letter or digit are left out.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in (answer for one in explained for answer in one.answers):
        if method in answer.methods:
            pairs = zip(answer.pieces, answer.methods[method].attribution.values, strict=True)
            for piece, value in pairs:
                if any(map(str.isalnum, piece)):
                    values[answer.group][piece.casefold()].append(float(value))
    found = {}
    for group, words in sorted(values.items()):
        # Among many words, one that occurs once says more about its text than about the answer.
        least = 2 if sum(len(v) > 1 for v in words.values()) >= 2 * MOST_WORDS else 1
        each = [Word(w, float(np.mean(v)), len(v)) for w, v in words.items() if len(v) >= least]
        each.sort(key=lambda one: -one.value)
        against = [one for one in each[-MOST_WORDS:] if one.value < 0]
        found[group] = [one for one in each[:MOST_WORDS] if one.value > 0] + against
    return found
