"""Parses a line of the stream: the only place where another party's bytes become rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloister.bounds import LARGE
from cloister.json_text import read_json
from cloister.tasks.config import LONGEST_LABEL, TaskKind
from cloister.watching.row import Features, StreamRow

# Longest line in bytes: a record of the longest context has half a megabyte of text, with escapes.
MOST_LINE = 2**20
# Most JSON values of a line: 5,000 labels with probabilities, and an embedding of 8,192 numbers.
MOST_VALUES = 50_000
# Most rows of a line: `cloister serve` answers 256 inputs at once; also for `predict --json`.
MOST_ROWS = 10_000
MOST_EMBEDDING = 8192
# Most types of entities in one row, all of which a window stores: three times as many as in the
# largest public sets (Few-NERD has 66).
MOST_TYPES = 200
# Longest value of a topic's column, in characters.
LONGEST_CELL = 200
# Rounded probabilities may sum to at most this much more than 1.
SLACK = 1e-3
# Largest plausible time, in seconds since 1970: the year 2200.
LATEST = 7_258_118_400.0
# The answer of a withheld label, such as one below a threshold.
WITHHELD = "no label"
_NOTHING = "none"


class RowError(Exception):
    """A line that is not a prediction.

    Args:
        reason: One of a few fixed phrases, by which lines are counted; it quotes no text.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class RowForm:
    """The form that a row must have.

    Attributes:
        kind: The model's task.
        labels: The labels that the model can answer; empty: any.
        text: The column of the input's text.
        time: The column of the time; None: rows have none.
        embedding: The column of the embedding.
        cells: The columns that topics name.
        refusals: Phrases of a refusal, in lower case.
    """

    kind: TaskKind
    labels: frozenset[str]
    text: str
    time: str | None
    embedding: str
    cells: tuple[str, ...]
    refusals: tuple[str, ...]


def parse_line(line: bytes, form: RowForm) -> tuple[StreamRow, ...]:
    """Parses the rows of a line: one prediction, or an answer of `cloister serve` with several.

    The rows of one answer share the answer's time and its columns of topics.

    Raises:
        RowError: The line, or one of its rows, is not a prediction; no row of it is taken then.
    """
    try:
        value = read_json(line, most_bytes=MOST_LINE, most_values=MOST_VALUES)
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8") from error
    except ValueError as error:
        is_nan = "is not a number" in str(error) or "too large" in str(error)
        raise RowError("NaN or infinite" if is_nan else "not JSON") from error
    if not isinstance(value, dict):
        raise RowError("not an object")
    several = value.get("predictions")
    if isinstance(several, list):
        if len(several) > MOST_ROWS or not all(isinstance(one, dict) for one in several):
            raise RowError("not an object")
        # A text, an embedding or answers shared by 10,000 rows would cost 10,000 times their size.
        shared = {name: one for name, one in value.items() if name in (form.time, *form.cells)}
        return tuple(_row({**shared, **one}, form) for one in several)
    return (_row(value, form),)


def _row(table: Mapping[str, Any], form: RowForm) -> StreamRow:
    text = table.get(form.text)
    if text is not None and not isinstance(text, str):
        raise RowError("a text that is none")
    categories, marks, numbers, score = _READERS[form.kind](table, form)
    if text is not None:
        numbers["text length"] = float(len(text))
    is_cut = table.get("is_cut", False)
    if not isinstance(is_cut, bool):
        raise RowError("is_cut is neither true nor false")
    categories["cut"] = "cut" if is_cut else "whole"
    answers = frozenset(marks) if marks is not None else _answers(table, form, categories)
    cells = {}
    for name in form.cells:
        cell = table.get(name)
        if isinstance(cell, str) and 0 < len(cell) <= LONGEST_CELL and cell.isprintable():
            cells[name] = cell
    return StreamRow(
        Features(categories, None if marks is None else frozenset(marks), numbers),
        answers,
        score,
        text,
        cells,
        None if form.time is None else read_time(table.get(form.time)),
        _embedding(table.get(form.embedding)),
    )


def _answers(
    table: Mapping[str, Any], form: RowForm, categories: Mapping[str, str]
) -> frozenset[str]:
    if form.kind == "recommendation":
        return frozenset(one["item"] for one in table["items"])
    return frozenset(value for name, value in categories.items() if name != "cut")


_Read = tuple[dict[str, str], list[str] | None, dict[str, float], float | None]


def _label(table: Mapping[str, Any], form: RowForm) -> _Read:
    label = table.get("label")
    if label == "" and isinstance(table.get("reason"), str):
        label = WITHHELD
    else:
        _check_label(label, form)
    shares = _probabilities(table.get("probabilities"), form)
    if shares and sum(shares.values()) > 1 + SLACK:
        raise RowError("probabilities over 1")
    found = {"confidence": max(shares.values())} if shares else {}
    return {"label": str(label)}, None, found, None


def _labels(table: Mapping[str, Any], form: RowForm) -> _Read:
    labels = table.get("labels")
    if not isinstance(labels, list) or len(labels) > MOST_VALUES:
        raise RowError("no labels")
    for one in labels:
        _check_label(one, form)
    shares = _probabilities(table.get("probabilities"), form)
    numbers = {"labels a row": float(len(labels))}
    if shares:
        # The confidence of the least certain label, on the side of its decision.
        numbers["confidence"] = min(max(share, 1 - share) for share in shares.values())
    return {}, labels, numbers, None


def _entities(table: Mapping[str, Any], form: RowForm) -> _Read:
    entities = table.get("entities")
    if not isinstance(entities, list) or not all(isinstance(one, dict) for one in entities):
        raise RowError("no entities")
    types = [one.get("type") for one in entities]
    if not all(isinstance(one, str) and 0 < len(one) <= LONGEST_LABEL for one in types):
        raise RowError("no entities")
    if len(set(types)) > MOST_TYPES:
        raise RowError("too many entity types")
    numbers = {"entities a row": float(len(entities))}
    shares = [_share(one["probability"]) for one in entities if "probability" in one]
    if shares:
        numbers["confidence"] = math.fsum(shares) / len(shares)
    return {}, [str(one) for one in types], numbers, None


def _score(table: Mapping[str, Any], form: RowForm) -> _Read:
    score = _number(table.get("score"), "no score")
    grade = table.get("grade")
    categories = {} if grade is None else {"grade": f"{_number(grade, 'no score'):g}"}
    return categories, None, {"score": score}, score


def _passages(table: Mapping[str, Any], form: RowForm) -> _Read:
    found = table.get("passages")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RowError("no passages")
    if not found:
        return {"passage": _NOTHING}, None, {}, None
    _check_label(found[0].get("id"), form)
    similarity = _number(found[0].get("similarity"), "no passages")
    return {"passage": str(found[0]["id"])}, None, {"similarity": similarity}, None


def _items(table: Mapping[str, Any], form: RowForm) -> _Read:
    found = table.get("items")
    good = isinstance(found, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("item"), str)
        and len(one["item"]) <= LONGEST_LABEL
        for one in found
    )
    if not good or found is None:
        raise RowError("no items")
    if not found:
        return {"first item": _NOTHING}, None, {}, None
    score = _number(found[0].get("score"), "no items")
    return {"first item": found[0]["item"]}, None, {"first score": score}, None


def _reply(table: Mapping[str, Any], form: RowForm) -> _Read:
    reply = table.get("reply")
    if reply is None:
        reply = _chosen(table.get("choices"))
    if not isinstance(reply, str):
        raise RowError("no reply")
    folded = reply.casefold()
    refused = any(one in folded for one in form.refusals)
    length = {"reply length": float(len(reply))}
    return {"refusal": "refusal" if refused else "reply"}, None, length, None


def _chosen(choices: object) -> object:
    """Returns the reply of an answer in OpenAI's format."""
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    return message.get("content") if isinstance(message, dict) else None


_READERS: dict[str, Callable[[Mapping[str, Any], RowForm], _Read]] = {
    "sequence-classification": _label,
    "text-pairs": _label,
    "multi-label-classification": _labels,
    "token-classification": _entities,
    "scoring": _score,
    "retrieval": _passages,
    "recommendation": _items,
    "causal-lm": _reply,
}


def _check_label(label: object, form: RowForm) -> None:
    if not isinstance(label, str) or not 0 < len(label) <= LONGEST_LABEL:
        raise RowError("no label")
    if form.labels and label not in form.labels:
        raise RowError("a label that the model does not have")


def _probabilities(found: object, form: RowForm) -> dict[str, float]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RowError("not a probability")
    for name in found:
        _check_label(name, form)
    return {name: _share(value) for name, value in found.items()}


def _share(value: object) -> float:
    share = _number(value, "not a probability")
    if not -SLACK <= share <= 1 + SLACK:
        raise RowError("not a probability")
    return min(max(share, 0.0), 1.0)


def _number(value: object, reason: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(reason)
    if abs(value) > LARGE:  # as a recipe's scores; sums of such numbers stay finite
        raise RowError(reason)
    return float(value)


def read_time(value: object) -> float:
    """Reads a time: ISO 8601 (in UTC if it has no zone), or seconds since 1970.

    Returns:
        Seconds since 1970.

    Raises:
        RowError: It is not a time, or its year is not plausible.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError as error:
            raise RowError("no time") from error
        found = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    else:
        raise RowError("no time")
    if not 0 <= found <= LATEST:
        raise RowError("no time")
    return found


def _embedding(value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 0 < len(value) <= MOST_EMBEDDING:
        raise RowError("not an embedding")
    return tuple(_number(one, "not an embedding") for one in value)
