"""A line of the stream becomes rows, for every task, or is refused by a fixed reason."""

import json
from typing import Any

import pytest

from cloister.serving.abstention import Decided
from cloister.serving.predictions import (
    Classified,
    Entity,
    Labelled,
    NearPassage,
    Ranked,
    RankedItem,
    Replied,
    Retrieved,
    Scored,
    Tagged,
)
from cloister.tasks.registry import BUILT_IN
from cloister.watching.parsing import MOST_LINE, RowError, parse_line, read_time
from cloister.watching.row import METHODS, StreamRow
from tests.support.watched import START, form

SHARES = {"negative": 0.75, "neutral": 0.25, "positive": 0.0}
ENTITY = Entity("person", "Ann", 0, 1, 0, 3, 0.5)
PREDICTIONS: dict[str, Any] = {
    "sequence-classification": Classified("negative", SHARES, False),
    "text-pairs": Classified("negative", SHARES, True),
    "multi-label-classification": Labelled(("negative", "neutral"), SHARES, False),
    "token-classification": Tagged((ENTITY, ENTITY), ("B-person",), False),
    "scoring": Scored(2.5, 3.0, False),
    "retrieval": Retrieved((NearPassage("p1", "text", 0.5),), False),
    "recommendation": Ranked((RankedItem("i1", 2.0), RankedItem("i2", 1.0)), False),
    "causal-lm": Replied("There is no answer", False),
}


def parsed(value: object, kind: str = "sequence-classification") -> StreamRow:
    (row,) = parse_line(json.dumps(value).encode(), form(kind, time=None))
    return row


def reason(line: bytes | object, kind: str = "sequence-classification", **changes: Any) -> str:
    text = line if isinstance(line, bytes) else json.dumps(line).encode()
    with pytest.raises(RowError) as caught:
        parse_line(text, form(kind, **{"time": None, **changes}))
    return caught.value.reason


def test_every_built_in_task_is_watched() -> None:
    assert set(METHODS) == set(BUILT_IN) == set(PREDICTIONS)


@pytest.mark.parametrize("kind", sorted(PREDICTIONS))
def test_what_predict_writes_is_a_row_with_the_features_that_are_told(kind: str) -> None:
    row = parsed(PREDICTIONS[kind].to_json(), kind)
    found = {*row.features.categories, *row.features.numbers} - {"cut"}
    marks = {"labels", "entity types"} if row.features.marks is not None else set()
    told = set(METHODS[kind].features)
    assert found | (marks & told) == told


def test_features_of_each_task_are_the_prediction_s_own() -> None:
    def numbers(kind: str) -> dict[str, float]:
        return dict(parsed(PREDICTIONS[kind].to_json(), kind).features.numbers)

    assert numbers("sequence-classification") == {"confidence": 0.75}
    # The most doubtful of 0.75, 0.25 and 0: both of the first are 0.75 sure.
    assert numbers("multi-label-classification") == {"labels a row": 2.0, "confidence": 0.75}
    assert numbers("token-classification") == {"entities a row": 2.0, "confidence": 0.5}
    assert numbers("causal-lm") == {"reply length": 18.0}
    assert parsed(PREDICTIONS["causal-lm"].to_json(), "causal-lm").answers == {"refusal"}
    assert parsed(PREDICTIONS["recommendation"].to_json(), "recommendation").answers == {"i1", "i2"}
    tagged = parsed(PREDICTIONS["token-classification"].to_json(), "token-classification")
    assert tagged.features.marks == tagged.answers == {"person"}
    assert parsed(PREDICTIONS["text-pairs"].to_json()).features.categories["cut"] == "cut"


def test_a_withheld_label_is_an_answer_of_its_own() -> None:
    decided = Decided("", 0.4, "below 0.5", {"negative": 0.4, "neutral": 0.3}, False)
    assert parsed(decided.to_json()).answers == {"no label"}
    assert reason({"label": ""}) == "no label"


def test_an_answer_of_serve_has_a_row_for_each_prediction() -> None:
    answer = {"version": "x", "company": "Acme", "predictions": [{"label": "neutral"}] * 2}
    rows = parse_line(json.dumps(answer).encode(), form(time=None))
    assert [row.cells for row in rows] == [{"company": "Acme"}] * 2
    chat = {"choices": [{"message": {"role": "assistant", "content": "yes"}}]}
    assert parsed(chat, "causal-lm").answers == {"reply"}


def test_what_is_costly_is_not_shared_by_the_rows_of_an_answer() -> None:
    """A line of 40 kB would become 600 MB of embeddings, and one of 240 kB 10 GB of names."""
    shared = {
        "at": START,
        "text": "x" * 100_000,
        "embedding": [0.5] * 8192,
        "predictions": [{"label": "neutral"}] * 5000,
    }
    rows = parse_line(json.dumps(shared).encode(), form())
    assert len(rows) == 5000
    assert {(row.at, row.text, row.embedding) for row in rows} == {(START, None, ())}
    for kind, column in (("token-classification", "entities"), ("recommendation", "items")):
        many = [{"type": f"t{n}", "item": f"i{n}", "score": 1} for n in range(150)]
        line = json.dumps({"at": START, column: many, "predictions": [{}]}).encode()
        with pytest.raises(RowError, match=f"no {column}"):
            parse_line(line, form(kind))


def test_names_of_answers_are_bounded() -> None:
    """A window keeps them of each row."""
    long = "x" * 300
    assert reason({"entities": [{"type": long}]}, "token-classification") == "no entities"
    assert reason({"items": [{"item": long, "score": 1}]}, "recommendation") == "no items"
    assert reason({"passages": [{"id": long, "similarity": 1}]}, "retrieval") == "no label"
    many = {"entities": [{"type": f"t{n}"} for n in range(201)]}
    assert reason(many, "token-classification") == "too many entity types"


def test_columns_beside_a_prediction() -> None:
    line = {"label": "neutral", "text": "déjà vu", "company": "Acme", "embedding": [1, 2.5]}
    row = parsed(line)
    assert row.features.numbers == {"text length": 7.0}
    assert (row.text, row.cells, row.embedding) == ("déjà vu", {"company": "Acme"}, (1.0, 2.5))
    assert parsed({"label": "neutral", "company": ["x"]}).cells == {}
    assert parsed({"label": "neutral", "company": "a\nb"}).cells == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff{}", "not UTF-8"),
        (b"[]", "not an object"),
        (b'{"predictions": [1]}', "not an object"),
        (b'{"label": "negative", "probabilities": {"negative": NaN}}', "NaN or infinite"),
        (b'{"label": "negative", "probabilities": {"negative": 1e999}}', "NaN or infinite"),
        (b'{"label": "negative", "probabilities": {"negative": "1"}}', "not a probability"),
        (b'{"label": "negative", "probabilities": {"negative": 1.5}}', "not a probability"),
        (b'{"label": "negative", "probabilities": {"negative": true}}', "not a probability"),
        (b'{"label": "negative", "probabilities": [1]}', "not a probability"),
        (b'{"label": "negative", "probabilities": {"neutral": 0.8, "negative": 0.8}}',
         "probabilities over 1"),
        (b'{"label": "happy"}', "a label that the model does not have"),
        (b'{"label": 3}', "no label"),
        (b"{}", "no label"),
        (b'{"label": "neutral", "text": 3}', "a text that is none"),
        (b'{"label": "neutral", "is_cut": 3}', "is_cut is neither true nor false"),
        (b'{"label": "neutral", "embedding": ["a"]}', "not an embedding"),
        (b'{"label": "neutral", "embedding": [1e300]}', "not an embedding"),
        (b'{"label": "neutral", "label": "neutral"}', "not JSON"),
        (b'{"label": "' + b"x" * MOST_LINE + b'"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_prediction_has_a_reason(line: bytes, why: str) -> None:
    assert reason(line) == why


@pytest.mark.parametrize("kind", sorted(PREDICTIONS))
def test_predictions_of_another_task_are_no_rows(kind: str) -> None:
    for other, prediction in PREDICTIONS.items():
        pairs = {"sequence-classification", "text-pairs"}
        if other != kind and not {kind, other} <= pairs:
            assert reason(prediction.to_json(), kind)


def test_times_are_iso_or_seconds_and_utc_where_no_zone_is_named() -> None:
    assert read_time("2026-01-05T00:00:00Z") == START
    assert read_time("2026-01-05") == START
    assert read_time("2026-01-05T01:00:00+01:00") == START
    assert read_time(START) == START
    for value in ("yesterday", "", None, True, -1, 1e12, "0001-01-01T00:00:00+14:00", "9999-12-31"):
        with pytest.raises(RowError, match="no time"):
            read_time(value)
    assert reason({"label": "neutral"}, time="at") == "no time"
