"""Finds how far each word moved an answer, by leaving it out and asking again.

    moved(i) = f(text) − f(text without word i)

with f the log-odds of the most probable label, or the score (occlusion: Zeiler & Fergus 2014,
arXiv:1311.2901, section 3.2, on words in place of image patches). What is left is asked as a text
of its own. The result shows what this model used, not whether it is right; of two words that say
the same, neither seems to count. `cloister model explain` compares this method with others.

Shapes: C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from cloister.serving.inputs import Input, as_pair, as_plain_text
from cloister.serving.predictions import Classified, Labelled, MovedWord, Scored
from cloister.serving.word_spans import spans_in
from cloister.tasks.pairs import TextPairs
from cloister.tasks.scoring import Scoring
from cloister.tasks.task import Task

# Most parts that are left out, one at a time; of a text with more words, neighbours are left out
# together. It bounds the number of passes that a request takes.
MOST_PARTS = 64
# Tasks whose predictions have reasons: words of the text, or items of the person.
REASONED = {
    "sequence-classification",
    "multi-label-classification",
    "scoring",
    "text-pairs",
    "recommendation",
}
# One text, or the two of a pair.
Texts = tuple[str, ...]
Answered = Classified | Labelled | Scored


def with_words(
    task: Task,
    texts: Texts,
    answer: Answered,
    logits_of: Callable[[Sequence[Texts]], Sequence[Tensor]],
) -> Answered:
    """Adds to an answer how far each word moved it.

    Args:
        task: The model's task.
        texts: The text, or the two of a pair.
        answer: The prediction for them.
        logits_of: Computes the logits of texts, [C] each.
    """
    parts = [
        (place, start, end)
        for place, text in enumerate(texts)
        for start, end in _joined(spans_in(text), MOST_PARTS // len(texts))
        if without(text, start, end).strip()
    ]
    left = [
        tuple(without(t, start, end) if n == place else t for n, t in enumerate(texts))
        for place, start, end in parts
    ]
    whole, *others = (_figure(task, answer, logits) for logits in logits_of([texts, *left]))
    moved = (
        MovedWord(place, start, end, whole - other)
        for (place, start, end), other in zip(parts, others, strict=True)
    )
    return replace(answer, because=tuple(moved))


def texts_of(task: Task, given: Input, number: int) -> Texts:
    """Checks an input as `Model.predict` does, and returns its text, or the two of a pair.

    Raises:
        DataError: The input is empty, or not of the kind that the task reads.
    """
    is_pair = isinstance(task, TextPairs)
    return as_pair(given, number) if is_pair else (as_plain_text(given, number),)


def without(text: str, start: int, end: int) -> str:
    """Returns a text without some of its characters, and without one of two blanks around them."""
    before, after = text[:start], text[end:]
    if after[:1].isspace() and (not before or before[-1].isspace()):
        after = after[1:]
    return before + after


def _joined(spans: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Joins neighbours into at most `most` parts of nearly equal numbers of words."""
    if len(spans) <= most:
        return list(spans)
    edges = [round(k * len(spans) / most) for k in range(most + 1)]
    return [(spans[first][0], spans[end - 1][1]) for first, end in pairwise(edges)]


def _figure(task: Task, answer: Answered, logits: Tensor) -> float:
    """Returns the figure of an answer under other logits, [C]."""
    row = logits.double()
    if isinstance(answer, Scored):
        assert isinstance(task, Scoring)
        return task.scale.score(float(row[0].sigmoid()))
    if isinstance(answer, Labelled):
        best = max(answer.probabilities, key=answer.probabilities.__getitem__)
        return float(row[task.labels.index(best)])
    chosen = task.labels.index(answer.label)
    others = [place for place in range(len(row)) if place != chosen]
    return float(row[chosen] - row[others].logsumexp(dim=0))
