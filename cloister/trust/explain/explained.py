"""Holds the explanation of one input, and converts it to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloister.trust.explain.edits import Probed
from cloister.trust.explain.faithfulness import Faithfulness
from cloister.trust.explain.gradients import Attribution


@dataclass(frozen=True)
class MethodResult:
    """The result of a method for one answer.

    Attributes:
        attribution: The values of the pieces.
        faithfulness: The quality of the values' order.
    """

    attribution: Attribution
    faithfulness: Faithfulness


@dataclass(frozen=True)
class Answer:
    """An answer of the model, with its explanation by each method.

    Attributes:
        answer: The answer as text.
        group: The kind of the answer, for summaries.
        figure_name: The name of the figure that the methods attribute.
        figure: The figure of the whole input.
        blank: The figure of the input with every piece blank.
        share: The figure as a share from 0 to 1: a probability, or the place of a score.
        pieces: The input's pieces.
        after: The text between each piece and the next.
        methods: The results by method, for those that this network allows.
        unavailable: By method that was asked for, the reason why it has no result.
    """

    answer: str
    group: str
    figure_name: str
    figure: float
    blank: float
    share: float
    pieces: tuple[str, ...]
    after: tuple[str, ...]
    methods: Mapping[str, MethodResult]
    unavailable: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns the answer as a JSON object."""
        return {
            "answer": self.answer,
            "group": self.group,
            "figure_name": self.figure_name,
            "figure": self.figure,
            "figure_of_blank": self.blank,
            "share": self.share,
            "pieces": list(self.pieces),
            "methods": {name: _method(one) for name, one in self.methods.items()},
            "unavailable": dict(self.unavailable),
        }


def _method(method: MethodResult) -> dict[str, Any]:
    attribution = method.attribution
    return {
        "values": [float(value) for value in attribution.values],
        "completeness_gap": attribution.gap,
        "steps": attribution.steps,
        "faithfulness": {**asdict(method.faithfulness), "gain": method.faithfulness.gain},
    }


@dataclass(frozen=True)
class Explained:
    """An input with the explanations of its answers.

    Attributes:
        shown: The input as text.
        said: The model's complete answer.
        is_cut: Whether the input was longer than the model reads, so its end was cut.
        answers: The explanation of each answer; empty if there is nothing to explain.
        edits: The effect of edits; None: they were not asked for.
    """

    shown: str
    said: str
    is_cut: bool
    answers: tuple[Answer, ...]
    edits: Probed | None

    def to_json(self) -> dict[str, Any]:
        """Returns the explanation as a JSON object."""
        edits = self.edits
        return {
            "input": self.shown,
            "said": self.said,
            "is_cut": self.is_cut,
            "answers": [one.to_json() for one in self.answers],
            "edits": None
            if edits is None
            else {
                "tried": edits.tried,
                "flips": [
                    {"kind": e.kind, "what": e.what, "answer": new} for e, new in edits.flips
                ],
            },
        }
