"""What holds over all explained inputs: how faithful each method is, and the telling words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.trust.explain.explained import Explained, MethodResult
from cloister.trust.intervals import Interval, mean

# Words of one answer that a summary lists, for it and against it.
MOST_WORDS = 12


@dataclass(frozen=True)
class MethodScore:
    """A method over all answers.

    Attributes:
        method: Its name.
        answers: How many were explained by it.
        deletion: Mean area, 0…1; small is good.
        insertion: Mean area; large is good.
        random_deletion: Mean of random orders.
        random_insertion: Likewise.
        gain: Over random orders, with its interval over answers.
        worst_gap: Largest gap of completeness as a part of the figure's difference from the blank
            input; None: the method promises none.
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
        word: In lower case.
        value: Mean over its occurrences.
        count: Occurrences in inputs with that answer.
    """

    word: str
    value: float
    count: int


def method_scores(explained: Sequence[Explained], seed: int) -> list[MethodScore]:
    """Scores of every method that explained an answer, in the methods' order.

    Args:
        explained: The inputs.
        seed: Of the intervals.
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
    """By kind of answer, the words with the largest mean contribution, for and against.

    Args:
        explained: The inputs; of few of them a word's mean is one text's.
        method: One whose values have a sign.

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
        # Of many words, one that occurs once says more of its text than of the answer.
        least = 2 if sum(len(v) > 1 for v in words.values()) >= 2 * MOST_WORDS else 1
        each = [Word(w, float(np.mean(v)), len(v)) for w, v in words.items() if len(v) >= least]
        each.sort(key=lambda one: -one.value)
        against = [one for one in each[-MOST_WORDS:] if one.value < 0]
        found[group] = [one for one in each[:MOST_WORDS] if one.value > 0] + against
    return found
