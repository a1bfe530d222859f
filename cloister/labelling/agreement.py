"""Measures how far annotators agree on the same records, overall and by label, with intervals.

The results are exact figures of private records, without noise, so they must stay at the
institution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloister.errors import UsageError
from cloister.labelling.annotated import Annotated
from cloister.labelling.coefficients import (
    Answers,
    Array,
    Coefficient,
    alpha,
    cohen,
    counts_of,
    fleiss,
    interval_alpha,
    raw,
)
from cloister.labelling.scheme import Answer

# Resamples of a bootstrap: the usual number for percentile intervals (Efron & Tibshirani 1993,
# An Introduction to the Bootstrap, section 13.3).
RESAMPLES = 1000
# Resamples that are computed together; it bounds the memory to some tens of megabytes.
_TOGETHER = 100
# Largest share of resamples with an undefined coefficient; above it no interval is reported.
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Figure:
    """A coefficient of agreement, with an interval from resampled records.

    Attributes:
        name: `raw`, `Cohen's kappa`, `Fleiss' kappa` or `Krippendorff's alpha`.
        label: The label whose agreement it measures; None: it measures whole answers.
        value: The estimate; None: undefined, because all answers are the same.
        low: Lower end of its 95 % interval; None: undefined.
        high: Upper end of its 95 % interval; None: undefined.
    """

    name: str
    label: str | None
    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the figure as JSON values."""
        return {
            "name": self.name,
            "label": self.label,
            "value": self.value,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True)
class AgreementReport:
    """The agreement of several annotators.

    Attributes:
        annotators: Their names.
        records: Number of records that at least two of them answered.
        by_all: Number of these records that all of them answered.
        unanimous: Number of these records to which all answers are equal.
        figures: The coefficients.
    """

    annotators: tuple[str, ...]
    records: int
    by_all: int
    unanimous: int
    figures: tuple[Figure, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "annotators": list(self.annotators),
            "records": self.records,
            "answered_by_all": self.by_all,
            "unanimous": self.unanimous,
            "figures": [figure.to_json() for figure in self.figures],
        }


def agreement(annotated: Annotated, seed: int = 0, resamples: int = RESAMPLES) -> AgreementReport:
    """Computes the coefficients of agreement and their bootstrap intervals.

    Args:
        annotated: The annotators' answers.
        seed: Seed of the bootstrap.
        resamples: Number of resamples of the bootstrap, which draws records.

    Raises:
        UsageError: Fewer than two annotators, or no record that two of them answered.
    """
    if len(annotated.annotators) < 2:
        raise UsageError("one file given; give the files of two or more annotators")
    both = [answers for answers in annotated.answers.values() if _given(answers) > 1]
    if not both:
        raise UsageError(
            "no record has an answer in two of the files; let the annotators label the same "
            "records of the same file (with the same --sample and --seed)"
        )
    figures: list[Figure] = []
    draws = _draws(len(both), seed, resamples)
    for label, judge in _views(annotated):
        judged = [(at, one) for at, answers in enumerate(both) for one in judge(answers)]
        owners = np.array([at for at, _ in judged], dtype=int)
        judgements = [one for _, one in judged]
        is_number = annotated.kind == "score"
        for name, chosen, coefficient in _coefficients(judgements, is_number):
            figures.append(_figure(name, label, coefficient, draws, owners[chosen]))
    everybody = len(annotated.annotators)
    return AgreementReport(
        annotators=annotated.annotators,
        records=len(both),
        by_all=sum(_given(answers) == everybody for answers in both),
        unanimous=sum(len({a for a in answers if a is not None}) == 1 for answers in both),
        figures=tuple(figures),
    )


def _given(answers: Sequence[Answer | None]) -> int:
    return sum(answer is not None for answer in answers)


# Turns one record's answers into judgements: one judgement, or one for each word.
_Judge = Callable[[Sequence[Answer | None]], list[Answers]]


def _views(annotated: Annotated) -> list[tuple[str | None, _Judge]]:
    """Returns how to judge whole answers, and for each label whether it was given."""
    if annotated.kind == "score":
        return [(None, lambda answers: [[_number(a) for a in answers]])]
    if annotated.kind == "entities":
        views: list[tuple[str | None, _Judge]] = [(None, _words)]
        return views + [(label, _words_of(label)) for label in annotated.labels]
    views = [(None, lambda answers: [[None if a is None else repr(a) for a in answers]])]
    return views + [(label, _has(label)) for label in annotated.labels]


def _number(answer: Answer | None) -> float | None:
    return answer if isinstance(answer, float) else None


def _has(label: str) -> _Judge:
    def judge(answers: Sequence[Answer | None]) -> list[Answers]:
        return [
            [
                None if a is None else str(a == label if isinstance(a, str) else label in _set(a))
                for a in answers
            ]
        ]

    return judge


def _set(answer: Answer) -> tuple[str, ...]:
    return answer if isinstance(answer, tuple) else ()


def _words(answers: Sequence[Answer | None]) -> list[Answers]:
    """Returns one judgement for each word: the tags that annotators gave it."""
    length = max(len(_set(a)) for a in answers if a is not None)
    return [[None if a is None else _set(a)[at] for a in answers] for at in range(length)]


def _words_of(label: str) -> _Judge:
    def judge(answers: Sequence[Answer | None]) -> list[Answers]:
        return [
            [None if tag is None else str(str(tag)[2:] == label) for tag in word]
            for word in _words(answers)
        ]

    return judge


def _coefficients(
    judgements: Sequence[Answers], is_number: bool
) -> list[tuple[str, np.ndarray[Any, Any], Coefficient]]:
    """Returns the coefficients that apply, each with the positions of the judgements it uses."""
    everybody = len(judgements[0])
    every = np.arange(len(judgements))
    full = np.array([at for at, one in enumerate(judgements) if None not in one], dtype=int)
    counts = counts_of(judgements)
    found = [("raw", every, raw(counts))]
    if is_number:
        return [*found, ("Krippendorff's alpha", every, interval_alpha(judgements))]
    if len(full) and everybody == 2:
        found.append(("Cohen's kappa", full, cohen([judgements[at] for at in full])))
    elif len(full):
        found.append(("Fleiss' kappa", full, fleiss(counts[full])))
    return [*found, ("Krippendorff's alpha", every, alpha(counts))]


def _draws(records: int, seed: int, resamples: int) -> Array:
    """Draws how often each record is in each resample, [resamples, records]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(records, np.full(records, 1 / records), resamples).astype(float)


def _figure(
    name: str, label: str | None, coefficient: Coefficient, draws: Array, owners: Any
) -> Figure:
    """Computes a coefficient with its percentile interval.

    `draws` is how often each record is in each resample, [B, records]; `owners` is the record of
    each judgement, [N].
    """
    parts = [
        coefficient.resampled(draws[start : start + _TOGETHER][:, owners])
        for start in range(0, len(draws), _TOGETHER)
    ]
    values = np.concatenate(parts)
    defined = values[np.isfinite(values)]
    value = coefficient.estimate()
    if value is None or len(defined) < (1 - _MOST_UNDEFINED) * len(values):
        return Figure(name, label, value, None, None)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Figure(name, label, value, float(low), float(high))
