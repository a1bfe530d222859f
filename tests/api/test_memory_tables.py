"""Records in memory are read the same from every library, with one clear error for each fault."""

import datetime
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cloister as cl
from cloister.api.memory_tables import records_in, write_tables
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.errors import DataError, UsageError

COLUMNS = DataConfig(label="intent", person="patient")
ROWS = [
    {"text": "chest pain", "intent": 7, "patient": "007", "when": datetime.date(2026, 1, 2)},
    {"text": "itchy\nrash – ja", "intent": 8, "patient": "NA", "when": None},
]
RECORDS = (
    TextRecord("chest pain", "7", person="007"),
    TextRecord("itchy\nrash – ja", "8", person="NA"),
)
TABLES = {
    "list": ROWS,
    "numpy values": [{**row, "intent": np.int64(row["intent"])} for row in ROWS],
    "pandas": pd.DataFrame(ROWS, index=[5, 5]),
    "pandas categories": pd.DataFrame(ROWS).astype({"intent": "category"}),
    "pyarrow": pa.Table.from_pylist(ROWS),
    "pyarrow batch": pa.RecordBatch.from_pylist(ROWS),
    "datasets": datasets.Dataset.from_list(ROWS),
    "datasets, picked": datasets.Dataset.from_list(ROWS[::-1] * 2).select([1, 0]),
}


def read(table: object, columns: DataConfig = COLUMNS) -> tuple[object, ...]:
    return records_in(table, "data", "text", columns, train=True, sites=False)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_equal_rows_are_equal_records_in_every_library(table: object) -> None:
    assert read(table) == RECORDS


def test_class_ids_are_read_by_their_names() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    records = records_in(table, "test", "text", COLUMNS_OF_TEST, train=False, sites=False)
    assert [record.label for record in records] == ["yes", "no"]  # type: ignore[union-attr]


COLUMNS_OF_TEST = DataConfig()


def test_words_and_conversations_are_read_from_frames_too() -> None:
    words = pd.DataFrame([{"tokens": ["in", "Rome"], "tags": ["O", "B-city"]}])
    (sentence,) = records_in(words, "data", "tokens", COLUMNS, train=False, sites=False)
    assert (sentence.tokens, sentence.tags) == (("in", "Rome"), ("O", "B-city"))  # type: ignore[union-attr]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    for table in ([{"messages": turns}], pd.DataFrame({"messages": [turns]})):
        (chat,) = records_in(table, "data", "messages", COLUMNS, train=False, sites=False)
        assert chat.messages[1].content == "hello"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "kind", ["text", "pairs", "labels", "score", "tokens", "messages", "a text", "a preference"]
)
def test_records_written_as_files_read_back_equal(kind: str, tmp_path: Path) -> None:
    columns = DataConfig(test="t.jsonl", train="x.jsonl", person="patient")
    turns = [{"role": "assistant", "content": "hello – \u2028 ja"}]
    row = {
        "text": "a\u2028b",
        "label": True,
        "tokens": ["in", "Rome"],
        "tags": ["O", "B-city"],
        "messages": turns,
        "text_b": "c\n",
        "labels": ["x", "y"],
        "score": 2.5,
        "patient": 2**70,
        "site": "st-marys",
    }
    if kind == "a text":
        row["messages"] = "all of it is learnt"
    if kind == "a preference":
        row |= {"messages": None, "prompt": "hi", "chosen": "hello", "rejected": "go away"}
    kind = "messages" if kind.startswith("a ") else kind
    records = records_in([row], "data", kind, columns, train=True, sites=True)  # type: ignore[arg-type]
    write_tables({"train": records}, tmp_path / "data", columns)
    file = tmp_path / "data" / "train.jsonl"
    assert tuple(load(str(file), "train", kind, columns, sites=True)) == records  # type: ignore[arg-type]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([{"text": "a", "label": "x"}], "data, row 1: no column 'intent' \\(found: text, label\\)"),
        (pd.DataFrame({"text": ["a"], "label": [1]}), "name the column in Study\\(..., label="),
        (pd.DataFrame({"other": ["a"]}), "no column 'text' \\(found: other\\)"),
        ([{"text": None, "intent": "x", "patient": 1}], "row 1: text has no value"),
        ([{"text": 5, "intent": "x", "patient": 1}], "text is an integer; text is needed"),
        ([{"text": "a", "intent": 0.5, "patient": 1}], "intent is a number that is not an integer"),
        (pd.DataFrame({**ROWS[0], "intent": [float("nan")]}), "intent has no value"),
        (pd.DataFrame({**ROWS[0], "intent": [1, "b"]}, index=[0, 1]), "of several kinds"),
        (
            [{"text": "a", "intent": i, "patient": 1} for i in (1, "1")],
            "row 2: intent is text here and an integer in row 1",
        ),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "duplicate column 'text'"),
        ([], "data: no records"),
        (pd.DataFrame({"text": []}), "no records"),
        (["chest pain"], "data, row 1: str given; a dict is needed"),
    ],
)
def test_rows_that_do_not_fit_are_named(table: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(table)


@pytest.mark.parametrize("table", [5, {"text": ["a"]}, iter(ROWS)])
def test_what_is_no_table_is_refused(table: object) -> None:
    with pytest.raises(UsageError, match=r"given; a pandas.DataFrame, pyarrow.Table, datasets"):
        read(table)


def test_several_splits_at_once_are_not_taken_for_sites() -> None:
    table = datasets.Dataset.from_list(ROWS)
    splits = datasets.DatasetDict({"train": table, "test": table})
    with pytest.raises(UsageError, match="give one split as data and another as test"):
        cl.Study(data=splits, test=splits)
