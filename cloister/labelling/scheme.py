"""What an annotator may answer: one label, several, a score, or the types of words."""

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
# The column that each kind is written to, where the recipe's [data] looks for it.
COLUMNS: Mapping[Kind, str] = {
    "one": "label",
    "several": "labels",
    "score": "score",
    "entities": "tags",
}
# Keys that choose a label: 1 to 9, 0, then letters without those that mean something else.
KEYS = "1234567890abcdefghijklmnopqrtvwxyz"
# Characters of a label: what a button on a telephone shows in two lines.
LONGEST = 60
# An answer of text, a number or tags.
Answer = str | float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """What an annotator may answer.

    Attributes:
        kind: `one` label, `several` or none, a `score`, or `entities`: a type for words.
        labels: Label or entity names, in the order of their keys; none of a score.
        lowest: Of a score; absent: any.
        highest: Of a score; absent: any.
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
            raise UsageError("--labels: a score has none; give --lowest and --highest, or neither")
        for name in ("lowest", "highest"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound):
                raise UsageError(f"--{name}: {bound} given; a finite number is needed")
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise UsageError(
                f"--lowest {self.lowest:g} --highest {self.highest:g}: the lowest must be lower"
            )

    def _check_labels(self) -> None:
        if self.lowest is not None or self.highest is not None:
            raise UsageError("--lowest, --highest: these bound a score; give --answer score")
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
            raise UsageError(f"--labels: one is given twice ({', '.join(self.labels)}); once each")

    def checked(self, given: Any, words: Sequence[str] = ()) -> Answer:
        """What a page sent, as an answer of this scheme.

        Args:
            given: A label, a list of labels, a number, or a list of tags (BIO), one a word.
            words: Of the record, for entities.

        Raises:
            DataError: It is no answer of this scheme.
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
        raise DataError(f"no answer of this page ({self.kind}); load the page again")

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
    """An answer as a cell of a row."""
    if isinstance(answer, float):
        return Number(str(int(answer)) if answer.is_integer() else repr(answer))
    return answer if isinstance(answer, str) else list(answer)


def answer_of(value: Value, kind: Kind) -> Answer | None:
    """An answer that a cell holds; None: none of this kind.

    Args:
        value: As the file has it; a label or a tag may be an integer there.
        kind: What is looked for.
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
