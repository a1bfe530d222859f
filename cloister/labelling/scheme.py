"""The answers that an annotator may give: one label, several, a score, or entity types of words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cloister.data.tag_schemes import as_bio
from cloister.data.values import Number, Value, shown
from cloister.errors import DataError, UsageError

Kind = Literal["one", "several", "score", "entities"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The column of each kind's answers, where the recipe's [data] looks by default.
COLUMNS: Mapping[Kind, str] = {
    "one": "label",
    "several": "labels",
    "score": "score",
    "entities": "tags",
}
# Keys that choose a label: 1 to 9, 0, then letters that have no other meaning on the page.
KEYS = "1234567890abcdefghijklmnopqrtvwxyz"
# Longest label in characters: a button on a telephone shows it in two lines.
LONGEST = 60
# An answer: a label, labels or tags, or a number.
Answer = str | float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """The allowed answers of a labelling.

    Attributes:
        kind: `one` label, `several` labels or none, a `score`, or `entities` (a type for words).
        labels: Labels or entity types, in the order of their keys; empty for a score.
        lowest: Lowest score; None: no limit.
        highest: Highest score; None: no limit.
    """

    kind: Kind
    labels: tuple[str, ...] = ()
    lowest: float | None = None
    highest: float | None = None

    def __post_init__(self) -> None:
        if self.kind == "score":
            self._check_score()
        else:
            self._check_labels()

    def _check_score(self) -> None:
        if self.labels:
            raise UsageError(
                "--labels: a score has no labels; leave them out (--lowest and --highest bound it)"
            )
        for name in ("lowest", "highest"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound):
                raise UsageError(f"--{name}: {bound} given; a finite number is needed")
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise UsageError(
                f"--lowest {self.lowest:g} --highest {self.highest:g}: --lowest must be below "
                "--highest"
            )

    def _check_labels(self) -> None:
        if self.lowest is not None or self.highest is not None:
            raise UsageError(
                "--lowest, --highest: only scores have bounds; give --answer score, or leave them "
                "out"
            )
        fewest = 2 if self.kind == "one" else 1
        if not fewest <= len(self.labels) <= len(KEYS):
            raise UsageError(
                f"--labels: {len(self.labels)} given; {fewest} to {len(KEYS)} are needed, each "
                "with a key of its own (--labels yes,no)"
            )
        for label in self.labels:
            if not label.strip() or not label.isprintable() or len(label) > LONGEST:
                raise UsageError(
                    f"--labels: {shown(label)!r} given; 1 to {LONGEST} visible characters are "
                    "needed"
                )
        if len(set(self.labels)) < len(self.labels):
            raise UsageError(
                f"--labels: a label is given twice ({', '.join(self.labels)}); give each once"
            )

    def checked(self, given: Any, words: Sequence[str] = ()) -> Answer:
        """Checks a value that a page sent and returns it as an answer.

        Args:
            given: A label, a list of labels, a number, or a list of BIO tags, one for each word.
            words: The record's words, for entities.

        Raises:
            DataError: The scheme does not allow this answer.
        """
        match self.kind:
            case "one":
                if isinstance(given, str) and given in self.labels:
                    return given
            case "several":
                if _texts(given) and set(given) <= set(self.labels):
                    return tuple(label for label in self.labels if label in given)
            case "score":
                if isinstance(given, int | float) and not isinstance(given, bool):
                    return self._score(float(given))
            case "entities":
                types = {f"{mark}-{label}" for mark in "BI" for label in self.labels} | {"O"}
                if _texts(given) and len(given) == len(words) and set(given) <= types:
                    return as_bio(given)
        raise DataError(f"not an answer of this page ({self.kind}); load the page again")

    def _score(self, given: float) -> float:
        low = -math.inf if self.lowest is None else self.lowest
        high = math.inf if self.highest is None else self.highest
        if not math.isfinite(given) or not low <= given <= high:
            raise DataError(f"{given:g} is not from {low:g} to {high:g}; give another score")
        return given

    def to_json(self) -> dict[str, Any]:
        """Returns the scheme as JSON values."""
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "lowest": self.lowest,
            "highest": self.highest,
        }


def _texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) for one in given)


def as_value(answer: Answer) -> Value:
    """Converts an answer to a cell of a row."""
    if isinstance(answer, float):
        return Number(str(int(answer)) if answer.is_integer() else repr(answer))
    return answer if isinstance(answer, str) else list(answer)


def answer_of(value: Value, kind: Kind) -> Answer | None:
    """Reads an answer from a cell; None: the cell holds no answer of this kind.

    Args:
        value: The cell's value; a label or tag may be an integer.
        kind: The expected kind of answer.
    """
    if kind == "score":
        try:
            found = float(value.written) if isinstance(value, Number) else math.nan
        except ValueError:
            return None
        return found if math.isfinite(found) else None
    if kind == "one":
        text = value.written if isinstance(value, Number) else value
        return text if isinstance(text, str) and text else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = [one for one in value if isinstance(one, str)]
        if len(names) == len(value):
            return tuple(sorted(set(names))) if kind == "several" else tuple(names)
    return None
