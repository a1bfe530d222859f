"""Labels and scores are read exactly as written; other values are refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import LabelsRecord, ScoreRecord
from cloister.data.targets import labels_of_cell, score_of_cell
from cloister.data.values import Number, Real, Value
from cloister.errors import DataError, MisfitError
from tests.support.examples import tries

Found = TypeVar("Found")

CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=8),
    st.floats().map(lambda x: Number(repr(x))),
    st.floats().map(lambda x: Real("double", x)),
    st.lists(
        st.one_of(st.text(max_size=4), st.none(), st.integers().map(lambda n: Number(str(n))))
    ),
)


def outcome(read: Callable[[], Found]) -> Found | str:
    """What was read, or the reason why it cannot be."""
    try:
        return read()
    except MisfitError as error:
        return error.reason


KINDS = ("nothing", "true or false", "an integer", "a number that is not an integer", "double")
HELD = ("an empty label", "nothing", "a number that is not an integer")
REASONS = {
    "labels is text, not a list of labels; declare their separator (label_separator), or use JSONL "
    "or Parquet",
    *(
        f"labels is {kind}, not a list of labels; write an empty list for a text without labels"
        for kind in KINDS
    ),
    *(f"labels holds {held}; a label is text or an integer" for held in HELD),
    "labels has half of a surrogate pair (\\ud800 to \\udfff), which is not a character; correct "
    "the row",
}
SCORE_REASONS = {
    *(f"score is {kind}; a number is needed" for kind in (*KINDS, "a list")),
    "score is not a number; write digits with a full stop before decimals, as 3.5",
}


@settings(max_examples=tries(100), deadline=None)
@given(cell=CELL, separator=st.sampled_from([None, ";", ", "]))
def test_any_cell_is_read_or_a_misfit_that_quotes_nothing(
    cell: Value, separator: str | None
) -> None:
    found = outcome(lambda: labels_of_cell(cell, "labels", separator, "row"))
    if isinstance(found, str):
        assert found in REASONS
    else:
        assert len(set(found)) == len(found)
        assert all(label.strip() for label in found)
    score = outcome(lambda: score_of_cell(cell, "score", "row"))
    assert score in SCORE_REASONS if isinstance(score, str) else math.isfinite(score)


@settings(max_examples=tries(50), deadline=None)
@given(st.lists(st.text("abc d", min_size=1).map(str.strip).filter(bool), max_size=5))
def test_a_list_and_its_parts_in_a_cell_are_the_same_labels(labels: list[str]) -> None:
    apart = labels_of_cell(labels, "labels", None, "row")
    assert labels_of_cell(";".join(labels), "labels", ";", "row") == apart
    assert labels_of_cell(" ; ".join(labels) + ";", "labels", ";", "row") == apart


@settings(max_examples=tries(50), deadline=None)
@given(st.floats(-1e6, 1e6, allow_nan=False))
def test_a_number_is_read_whole(score: float) -> None:
    for cell in (Number(repr(score)), repr(score), f" {score!r} ", Real("double", score)):
        assert score_of_cell(cell, "score", "row") == score


@pytest.mark.parametrize("cell", ["", "3,5", "1 000", "three", "nan", "inf", "0x10", "1e999", "٣"])
def test_what_is_no_number_in_figures_is_a_misfit(cell: str) -> None:
    with pytest.raises(MisfitError, match="not a number"):
        score_of_cell(cell, "score", "row")


LABELS = [("fever", ("b", "a")), ("rash", ()), ("cough", ("a",))]


def test_every_format_holds_the_same_labels(tmp_path: Path) -> None:
    rows = [{"text": text, "labels": list(labels)} for text, labels in LABELS]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    cells = "".join(f"{text},{'|'.join(labels)}\n" for text, labels in LABELS)
    (tmp_path / "x.csv").write_text(f"text,labels\n{cells}")
    expected = [LabelsRecord(text, labels) for text, labels in LABELS]
    columns = DataConfig(label_separator="|")
    for name in ("x.jsonl", "x.parquet", "x.csv"):
        assert load(str(tmp_path / name), "test", "labels", columns) == expected
    with pytest.raises(DataError, match="row 1: labels is text, not a list of labels; declare"):
        load(str(tmp_path / "x.csv"), "test", "labels", DataConfig())


def test_essays_with_columns_of_their_own_are_read(tmp_path: Path) -> None:
    """As the ASAP set has them: tab-separated, the score in a column of its rubric."""
    (tmp_path / "essays.tsv").write_text("essay_id\tessay\tdomain1_score\n1\tDear editor\t8\n")
    pq.write_table(
        pa.table({"essay": ["Dear editor"], "domain1_score": [8.0]}), tmp_path / "essays.parquet"
    )
    columns = DataConfig(text="essay", score="domain1_score")
    for name in ("essays.tsv", "essays.parquet"):
        assert load(str(tmp_path / name), "test", "score", columns) == [
            ScoreRecord("Dear editor", 8.0)
        ]


def test_labels_of_texts_and_of_integers_are_not_mixed_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "labels": ["1"]}\n{"text": "b", "labels": [1]}\n')
    with pytest.raises(DataError, match="row 2: labels is an integer here and text in row 1"):
        load(str(path), "test", "labels", DataConfig())


def test_a_row_without_labels_is_told_from_a_text_without_any(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "labels": []}\n')
    assert load(str(path), "test", "labels", DataConfig()) == [LabelsRecord("a", ())]
    path.write_text('{"text": "a", "labels": null}\n')
    with pytest.raises(DataError, match="has no value"):
        load(str(path), "test", "labels", DataConfig())
