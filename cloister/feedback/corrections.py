"""Checks answers and corrections by the model's task, and turns a correction into a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.bounds import listed, shortened
from cloister.data.config import DataConfig
from cloister.data.records import RecordKind
from cloister.data.values import Number, Value
from cloister.errors import DataError
from cloister.tasks.score_scale import ScoreScale

# A model's input as JSON: a text, a list of words or ids, a pair of texts, or turns of a chat.
Given = str | list[Any]
# An answer or correction as JSON: one field, named label, labels, score, entities, item, items or
# reply.
Answer = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """The answers that are valid for one model: corrections are checked against them.

    Attributes:
        kind: Kind of records that the task reads.
        labels: Labels, entity types, or ids of passages or items; empty for scores and replies.
        scale: The scale of scores; None for every other task.
    """

    kind: RecordKind
    labels: tuple[str, ...] = ()
    scale: ScoreScale | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON from which a page builds its correction form."""
        scale = self.scale
        scored: dict[str, Any] = {}
        if scale is not None:
            scored["score_range"] = [scale.low, scale.high]
        if scale is not None and scale.step is not None:
            scored["score_step"] = scale.step
        return {"kind": self.kind, "labels": list(self.labels), **scored}

    def said(self, prediction: Any) -> Answer:
        """Returns the part of a prediction that the store keeps, without its probabilities.

        Args:
            prediction: The JSON that `POST /v1/predict` returned, or at least the kept part of it.

        Raises:
            DataError: It is not a prediction of this task.
        """
        try:
            if self.kind in ("text", "pairs"):
                found = prediction.get("passages")
                label = prediction["label"] if found is None else found[0]["id"]
                return {"label": _text(label)}
            if self.kind == "labels":
                return {"labels": [_text(one) for one in prediction["labels"]]}
            if self.kind == "score":
                return {"score": _number(prediction["score"])}
            if self.kind == "tokens":
                return {"entities": [_span(one) for one in prediction["entities"]]}
            if self.kind == "items":
                return {
                    "items": [
                        _text(one if isinstance(one, str) else one["item"])
                        for one in prediction["items"]
                    ]
                }
            return {"reply": _text(prediction["reply"])}
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                "answer: not a prediction of this model; send the prediction as this service "
                'returned it (for a chat, {"reply": "…"})'
            ) from error

    def corrected(self, given: Any, asked: Given) -> Answer:
        """Checks a person's correction and returns it in the form that the store keeps.

        Args:
            given: `{"label": …}`, `{"labels": […]}`, `{"score": …}`, `{"entities": [{"type": …,
                "words": [first, end]}]}`, `{"item": …}` or `{"reply": …}`, by the task.
            asked: The model's input; entities must lie within its words.

        Raises:
            DataError: It has another form, or the study has no such label, type, item or score.
        """
        name = _NAMES[self.kind]
        if not isinstance(given, dict) or set(given) != {name}:
            raise DataError(f'correction: needed for this model is an object {{"{name}": …}}')
        value = given[name]
        if name == "label" or name == "item":
            return {name: self._known(value)}
        if name == "labels":
            given_labels = _listed(value, name)
            if len(given_labels) > len(self.labels):
                raise DataError(
                    f"correction: {name}: {len(given_labels)} given; the model has only "
                    f"{len(self.labels)}"
                )
            known = {self._known(one) for one in given_labels}
            return {name: [label for label in self.labels if label in known]}
        if name == "score":
            return {name: self._score(value)}
        if name == "entities":
            return {name: self._entities(_listed(value, name), len(asked))}
        if not isinstance(value, str) or not value.strip():
            raise DataError("correction: reply: a text is needed")
        return {name: value}

    def agreed(self, answer: Answer) -> Answer:
        """Returns the correction that says the same as an answer that a person called right.

        A ranked list becomes its first item. A score becomes the nearest grade, if the scale has
        grades.

        Raises:
            DataError: The list is empty.
        """
        scale = self.scale
        if scale is not None and scale.step is not None:
            return {"score": scale.of_grade(scale.grade(answer["score"]))}
        if self.kind != "items":
            return answer
        if not answer["items"]:
            raise DataError("answer: items: the list is empty, so no item can be called right")
        return {"item": answer["items"][0]}

    def _known(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.labels:
            raise DataError(
                f"correction: {shortened(value)} given; one of {listed(self.labels)} is needed"
            )
        return value

    def _score(self, value: Any) -> float:
        assert self.scale is not None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or self.scale.problem(value) is not None:
            raise DataError(
                f"correction: score: {shortened(value)} given; a number of {self.scale} is needed"
            )
        return float(value)

    def _entities(self, given: Sequence[Any], words: int) -> list[dict[str, Any]]:
        try:
            spans = sorted((_span(one) for one in given), key=lambda span: span["words"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                'correction: entities: {"type": …, "words": [first, end]} is needed of each, words '
                "counted from 0"
            ) from error
        end = 0
        for span in spans:
            first, after = span["words"]
            if not end <= first < after <= words:
                raise DataError(
                    f"correction: entities: words {first} to {after} given; entities must not "
                    f"overlap, in a sentence of {words} words"
                )
            self._known(span["type"])
            end = after
        return spans


_NAMES: Mapping[RecordKind, str] = {
    "text": "label",
    "pairs": "label",
    "labels": "labels",
    "score": "score",
    "tokens": "entities",
    "items": "item",
    "messages": "reply",
}


def row_of(
    kind: RecordKind, asked: Given, correction: Answer, columns: DataConfig
) -> dict[str, Value]:
    """Returns a correction as a row of the site's data file.

    Args:
        kind: Kind of records that the task reads.
        asked: The model's input, as the store keeps it.
        correction: The value that `Answers.corrected` returned.
        columns: Names of the data file's columns.

    Returns:
        Values by column.
    """
    if kind == "messages":
        return {columns.messages: [*asked, {"role": "assistant", "content": correction["reply"]}]}
    if kind == "items":
        return {columns.items_column: [*asked, correction["item"]]}
    if kind == "tokens":
        return {columns.tokens: list(asked), columns.tags: _tags(len(asked), correction)}
    if kind == "pairs":
        return {
            columns.text: asked[0],
            columns.second: asked[1],
            columns.label: correction["label"],
        }
    assert isinstance(asked, str)
    if kind == "labels":
        labels: list[str] = correction["labels"]
        separator = columns.label_separator
        cell: Value = labels if separator is None else separator.join(labels)
        return {columns.text: asked, columns.labels_column: cell}
    if kind == "score":
        return {columns.text: asked, columns.score_column: Number(repr(correction["score"]))}
    return {columns.text: asked, columns.label: correction["label"]}


def _tags(words: int, correction: Answer) -> list[str]:
    tags = ["O"] * words
    for span in correction["entities"]:
        first, end = span["words"]
        tags[first] = f"B-{span['type']}"
        tags[first + 1 : end] = [f"I-{span['type']}"] * (end - first - 1)
    return tags


def _span(given: Any) -> dict[str, Any]:
    first, end = given["words"]
    if type(first) is not int or type(end) is not int:
        raise TypeError
    return {"type": _text(given["type"]), "words": [first, end]}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"correction: {name}: a list is needed")
    return value
