"""Parquet values with one spelling are read exactly; others are refused with their row."""

import datetime
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloister.cli.main import run
from cloister.data import columnar, parquet_rows
from cloister.data.arrow_rows import class_names
from cloister.data.config import DataConfig
from cloister.data.interactions.times import time_of_cell
from cloister.data.load import load
from cloister.data.outputs import json_text
from cloister.data.records import ChatRecord, Message, TextRecord, TokenRecord
from cloister.data.values import Moment, Unusable
from cloister.errors import DataError

COLUMNS = DataConfig(person="patient")
TEXTS = ["x", "y"]
NOW = datetime.datetime(2020, 1, 1, 12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.parquet"


def put(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Path, columns: DataConfig = COLUMNS) -> list[Any]:
    return load(str(path), "train", "text", columns)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["01", "1"]),
        pa.array(["01", "1"], pa.large_string()),
        pa.array(["01", "1"], pa.string_view()),
        pa.array(["01", "1"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array(["1", "01"])),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_of_every_type_are_read(path: Path, column: pa.Array) -> None:
    put(path, text=column, label=column, patient=column)
    assert read(path) == [TextRecord(v, v, None, v) for v in ("01", "1")]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.0, pa.float64()),
        (1.0, pa.float32()),
        (NOW, pa.timestamp("us")),
        (NOW, pa.timestamp("ns", "UTC")),
        (NOW.date(), pa.date32()),
        (NOW.time(), pa.time64("us")),
        (datetime.timedelta(1), pa.duration("s")),
        (Decimal("1.50"), pa.decimal128(10, 2)),
        (b"1", pa.binary()),
        (["a"], pa.list_(pa.string())),
        ({"a": "b"}, pa.struct({"a": "string"})),
        ([("a", "b")], pa.map_(pa.string(), pa.string())),
        ([[[[["a"]]]]], pa.list_(pa.list_(pa.list_(pa.list_(pa.list_(pa.string())))))),
    ],
    ids=str,
)
@pytest.mark.parametrize("column", ["label", "patient"])
def test_what_has_no_one_spelling_is_refused_with_its_row(
    path: Path, column: str, value: Any, kind: pa.DataType
) -> None:
    odd = pa.array([None, value], kind)
    columns = {"text": TEXTS, "label": ["a", "b"], "patient": ["1", "2"], "other": odd}
    assert len(read(put(path, **columns))) == 2  # a column that is not read may hold anything
    put(path, **{**columns, column: odd})
    with pytest.raises(DataError, match=rf"^train\.parquet, row 1: {column} has no value"):
        read(path)
    put(path, **{**columns, column: pa.array([value, value], kind)})
    with pytest.raises(DataError, match=rf"^train\.parquet, row 1: {column} is .*write it as text"):
        read(path)


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (NOW.date(), pa.date32(), "2020-01-01"),
        (NOW.date(), pa.date64(), "2020-01-01"),
        (datetime.date(1969, 12, 31), pa.date32(), "1969-12-31"),
        (NOW, pa.timestamp("s"), "2020-01-01T12:00:00"),
        (NOW, pa.timestamp("ns"), "2020-01-01T12:00:00"),
        (NOW.replace(microsecond=500_000), pa.timestamp("us"), "2020-01-01T12:00:00.5"),
        (-1, pa.timestamp("ms"), "1969-12-31T23:59:59.999"),
        (1, pa.timestamp("ns", "Europe/Berlin"), "1970-01-01T00:00:00.000000001+00:00"),
    ],
    ids=str,
)
def test_a_date_is_a_time_in_iso_8601(
    path: Path, value: Any, kind: pa.DataType, written: str
) -> None:
    put(path, at=pa.array([value, None], kind))
    (_, one), (_, none) = parquet_rows.parquet_rows(path, ["at"])
    assert isinstance(one["at"], Moment)
    assert (one["at"].written, none["at"]) == (written, None)
    assert json_text(one["at"]) == f'"{written}"'
    name, seconds = time_of_cell(one["at"], "at", "row 1")
    assert (name, math.floor(seconds)) == ("a date", math.floor(_seconds(written)))


def _seconds(written: str) -> float:
    found = datetime.datetime.fromisoformat(written)
    return found.replace(tzinfo=datetime.UTC).timestamp()


def test_a_date_beyond_the_calendar_is_no_value(path: Path) -> None:
    put(path, at=pa.array([2**31 - 1], pa.int32()).cast(pa.date32()))
    ((_, row),) = parquet_rows.parquet_rows(path, ["at"])
    assert row["at"] == Unusable("date32[day]")


def test_records_are_split_by_a_column_of_dates_which_is_kept_as_text(path: Path) -> None:
    days = [datetime.date(2024, 3, day) for day in (1, 2, 30, 31)]
    put(path, text=["a", "b", "c", "d"], label=["x"] * 4, at=days)
    out = path.with_name("parts")
    made = ["data", "split", str(path), "--out", str(out), "--by", "time", "--column", "at"]
    assert run([*made, "--test-from", "2024-03-30", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    assert [(row["text"], row["at"]) for row in rows] == [("c", "2024-03-30"), ("d", "2024-03-31")]


def test_truths_are_labels_and_no_identifiers(path: Path) -> None:
    put(path, text=TEXTS, label=[True, False], patient=["1", "2"])
    assert [record.label for record in read(path)] == ["true", "false"]
    with pytest.raises(DataError, match="row 1: label is true or false; a person must be text"):
        read(path, DataConfig(person="label", label="patient"))


def test_integers_with_gaps_that_a_writer_made_floats_are_refused(path: Path) -> None:
    put(path, text=TEXTS, label=["a", "b"], patient=pa.array([12.0, None]))
    with pytest.raises(
        DataError, match="row 1: patient is double; a person must be text or an integer"
    ):
        read(path)


def test_bytes_in_a_text_that_are_not_utf_8_are_named_with_their_row(path: Path) -> None:
    damaged = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    put(path, text=damaged, label=["a", "b"], patient=["1", "2"])
    with pytest.raises(DataError, match="row 2: text is bytes that are not UTF-8"):
        read(path)


def described(path: Path, features: object, **columns: Any) -> Path:
    table = pa.table(columns)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


CLASSES = {"names": ["flu", "cold"], "_type": "ClassLabel"}


def test_class_ids_are_the_names_that_the_file_gives_them(path: Path) -> None:
    columns = {"text": TEXTS, "label": [1, 0], "patient": ["1", "2"]}
    assert [r.label for r in read(described(path, {"label": CLASSES}, **columns))] == [
        "cold",
        "flu",
    ]
    for missing in (-1, None):
        columns["label"] = [0, missing]
        with pytest.raises(DataError, match="row 2: label has no value"):
            read(described(path, {"label": CLASSES}, **columns))
    columns["label"] = [0, 2]
    with pytest.raises(DataError, match="row 2: label is the class id 2, which has no name"):
        read(described(path, {"label": CLASSES}, **columns))


@pytest.mark.parametrize(
    "features", [None, 3, [], {"label": 1}, {"label": {"_type": "ClassLabel"}}]
)
def test_other_metadata_names_no_class(path: Path, features: object) -> None:
    assert class_names(features, "x") == {}
    put = described(path, features, text=TEXTS, label=[1, 0], patient=["1", "2"])
    assert [record.label for record in read(put)] == ["1", "0"]


def test_two_classes_of_one_name_are_refused(path: Path) -> None:
    twice = {"names": ["flu", "flu"], "_type": "ClassLabel"}
    described(path, {"label": twice}, text=TEXTS, label=[1, 0], patient=["1", "2"])
    with pytest.raises(
        DataError, match=r"train\.parquet: duplicate class name 'flu' in the column 'label'"
    ):
        read(path)


@pytest.mark.parametrize(
    "tags", [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 2)]
)
def test_lists_of_every_type_are_read(path: Path, tags: pa.DataType) -> None:
    words = pa.array([["skipped", "x"], ["a", "b"], ["c", "d"]], tags).slice(1)
    put(path, tokens=words, tags=pa.array([["O", "B-X"], ["O", "O"]], tags))
    assert load(str(path), "train", "tokens", DataConfig()) == [
        TokenRecord(("a", "b"), ("O", "B-X")),
        TokenRecord(("c", "d"), ("O", "O")),
    ]


def test_lists_of_class_ids_and_categories_are_read(path: Path) -> None:
    names = {"feature": {"names": ["O", "B-X"], "_type": "ClassLabel"}, "_type": "List"}
    words = pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", "b"]).dictionary_encode())
    described(path, {"tags": names}, tokens=words, tags=[[1], [0]])
    assert load(str(path), "train", "tokens", DataConfig()) == [
        TokenRecord(("a",), ("B-X",)),
        TokenRecord(("b",), ("O",)),
    ]


def test_conversations_with_gaps_and_further_fields(path: Path) -> None:
    turns = [{"role": "user", "content": "x", "at": NOW}, {"role": "assistant", "content": "y"}]
    put(path, messages=[turns, turns * 2])
    pair = (Message("user", "x"), Message("assistant", "y"))
    assert load(str(path), "train", "messages", DataConfig()) == [
        ChatRecord(pair),
        ChatRecord(pair * 2),
    ]
    put(path, messages=[turns, [None, *turns]])
    with pytest.raises(DataError, match="row 2: turn 1 needs a role"):
        load(str(path), "train", "messages", DataConfig())


@pytest.mark.parametrize("name", ["a.b", "a", "list", "x.list.element", "naïve 頭", "[1]*"])
def test_a_column_may_have_any_name(path: Path, name: str) -> None:
    put(path, **{"text": TEXTS, name: ["l1", "l2"], "a.b.c": [{"d": "e"}] * 2, "b": TEXTS})
    found = read(path, DataConfig(label=name))
    assert [record.label for record in found] == ["l1", "l2"]


def test_a_column_that_is_there_twice_is_refused_where_it_is_read(path: Path) -> None:
    twice = pa.Table.from_arrays(
        [pa.array(TEXTS), pa.array(["a", "b"]), pa.array(["c", "d"])], ["text", "label", "label"]
    )
    pq.write_table(twice, path)
    with pytest.raises(DataError, match=r"train\.parquet: duplicate column 'label'"):
        read(path, DataConfig())


def test_a_missing_column_is_named_beside_those_that_are_there(path: Path) -> None:
    put(path, text=TEXTS, icd=["a", "b"], at=[NOW, NOW])
    with pytest.raises(DataError, match=r"row 1: no column 'label' \(found: icd, at, text\)"):
        read(path, DataConfig())
    with pytest.raises(DataError, match=r"row 1: no column 'note' \(found: text, icd, at\)"):
        read(path, DataConfig(text="note", label="code"))


def test_rows_are_counted_over_groups_and_batches(path: Path) -> None:
    count = 2 * parquet_rows.BATCH + 5
    labels = [f"l{i}" for i in range(count - 1)] + [""]
    pq.write_table(pa.table({"text": ["x"] * count, "label": labels}), path, row_group_size=700)
    with pytest.raises(DataError, match=rf"row {count}: label is empty"):
        read(path, DataConfig())


def test_a_row_larger_than_the_bound_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "MOST_ROW_BYTES", 2**20)
    put(path, text=["x", "y" * 2**20], label=["a", "b"])
    with pytest.raises(DataError, match="row 2: longer than 1 MiB"):
        read(path, DataConfig())


def test_a_table_without_rows_has_no_records(path: Path) -> None:
    put(path, text=pa.array([], pa.string()), label=pa.array([], pa.string()))
    with pytest.raises(DataError, match="no records"):
        read(path, DataConfig())
