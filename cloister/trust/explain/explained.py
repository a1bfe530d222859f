"""One input's explanation as a value, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloister.trust.explain.edits import Probed
from cloister.trust.explain.faithfulness import Faithfulness
from cloister.trust.explain.gradients import Attribution


@dataclass(frozen=True)
class MethodResult:
    """What a method says of one answer.

    Attributes:
        attribution: Its values.
        faithfulness: How good their order is.
    """

    attribution: Attribution
    faithfulness: Faithfulness


@dataclass(frozen=True)
class Answer:
    """An answer of the model, explained.

    Attributes:
        answer: In words.
        group: Its kind, for summaries.
        figure_name: What the methods attribute.
        figure: Of the whole input.
        blank: Of the input with every piece blank.
        share: The figure as a share from 0 to 1: a probability, or where a score lies.
        pieces: The input's pieces.
        after: What is written behind each.
        methods: By name; those that this network has.
        unavailable: By name, why a method that was asked for has nothing to say.
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
    """An input with its answers.

    Attributes:
        shown: The input as text.
        said: The model's whole answer.
        is_cut: Whether the input was longer than what the model reads.
        answers: Each answer's explanation; none where there is nothing to explain.
        edits: What edits did; None: they were not asked for.
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
