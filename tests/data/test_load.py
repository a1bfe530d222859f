"""Files and hub data sets become records, or one clear error."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

from cloister.data.config import SYNTHETIC, DataConfig
from cloister.data.load import load
from cloister.data.records import ChatRecord, Message, RecordKind, TextRecord, TokenRecord
from cloister.errors import DataError, NetworkError
from tests.support.formats import FORMATS

COLUMNS = DataConfig(person="person")

# What readers like to change: numbers with zeros in front, words that pandas takes for missing
# values, separators and quotes, line breaks, other scripts.
TEXTS = [
    {"text": "chest pain", "label": "NA", "site": "01", "person": "007"},
    {"text": 'a "quoted", text\nof two lines', "label": "null", "site": "1", "person": "7"},
    {"text": "1e5", "label": "true", "site": "north", "person": "None"},
    {"text": "头痛 κρύωμα 🤒", "label": "0", "site": "01", "person": "x"},
]
EXPECTED = [TextRecord(**row) for row in TEXTS]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        Dataset.from_list(rows).to_csv(path)
    else:
        Dataset.from_list(rows).to_parquet(path)
    return path


def read(path: Path | str, kind: RecordKind = "text", columns: DataConfig = COLUMNS) -> list[Any]:
    return load(str(path), "train", kind, columns, sites=kind == "text")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `datasets`, moved to where a test can see what is left in it."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, folder)
    return folder


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*FORMATS, ".JSONL"])
def test_texts_are_the_same_from_every_format(tmp_path: Path, suffix: str, cache: Path) -> None:
    path = written(tmp_path / f"train{suffix.lower()}", TEXTS)
    assert read(path.rename(tmp_path / f"train{suffix}")) == EXPECTED
    assert list(cache.rglob("*")) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_sentences_and_conversations_are_the_same_from_every_format_with_lists(
    tmp_path: Path, suffix: str
) -> None:
    columns = DataConfig()
    path = written(
        tmp_path / f"ner{suffix}",
        [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}, {"tokens": ["c"], "tags": ["O"]}],
    )
    assert read(path, "tokens", columns) == [
        TokenRecord(("a", "b"), ("O", "B-X")),
        TokenRecord(("c",), ("O",)),
    ]
    turns = [{"role": "user", "content": "fever"}, {"role": "assistant", "content": "rest"}]
    path = written(tmp_path / f"chat{suffix}", [{"messages": turns}, {"messages": turns * 2}])
    messages = (Message("user", "fever"), Message("assistant", "rest"))
    assert read(path, "messages", columns) == [ChatRecord(messages), ChatRecord(messages * 2)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_edited_file_is_read_anew(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"train{suffix}", TEXTS)
    read(path)
    written(path, TEXTS[:1])
    assert read(path) == EXPECTED[:1]


def test_a_relative_name_is_a_file_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "train.csv", TEXTS)
    assert read("train.csv") == EXPECTED
    (tmp_path / "notes.txt").write_text("fever")
    with pytest.raises(DataError, match=r"^notes\.txt: not one of \.jsonl, \.json, \.csv"):
        read("notes.txt")


def test_class_ids_in_a_parquet_file_become_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["flu", "cold"])})
    path = tmp_path / "train.parquet"
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(path)
    assert [record.label for record in load(str(path), "test", "text", DataConfig())] == [
        "cold",
        "flu",
    ]


GARBAGE = bytes(range(256)) * 8
BAD = {
    "empty": b"",
    "garbage": GARBAGE,
    "zeros": bytes(500),
    "blank lines": b"\n\n\n",
    "malformed": b'{"text": "a", "label": "b"}\n{"text": oops\n"',
    "a number": b"3",
    "a list": b"[1, 2]",
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_ends_in_one_error_that_names_it(
    tmp_path: Path,
    suffix: str,
    name: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    cache: Path,
) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(BAD[name])
    with caplog.at_level(logging.NOTSET), pytest.raises(DataError) as raised:
        read(path)
    assert f"train{suffix}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (": empty; give a file" in str(raised.value)) == (name == "empty")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")
    assert list(cache.rglob("*")) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    with pytest.raises(DataError, match=r"no such file; correct data\.train$") as raised:
        read(path)
    assert str(path) in str(raised.value)
    path.mkdir()
    with pytest.raises(DataError, match="is a folder, not a file"):
        read(path)


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (b'{"text": "a", "label": "b"}\n{"text": oops\n', 2),
        (b'{"text": "a", "label": "b"}\n{"text": "c", "label": "b"}\n{"text": "c"', 3),
        (b"text,label\na,b\n", 1),
    ],
)
def test_a_malformed_line_of_jsonl_is_named(tmp_path: Path, content: bytes, row: int) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.jsonl, row {row}: no valid JSON object \("):
        load(str(path), "test", "text", DataConfig())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_row_that_cannot_be_used_is_named_with_its_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"train{suffix}", [*TEXTS, {**TEXTS[0], "text": " "}])
    with pytest.raises(DataError, match=rf"^train\{suffix}, row 5: text is empty"):
        read(path)


def test_a_row_of_jsonl_is_counted_as_an_editor_counts_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        f'{json.dumps(TEXTS[0])}\n\n  \n{{"text": " ", "label": "a", "site": "s", "person": "x"}}\n'
    )
    with pytest.raises(DataError, match=r"^train\.jsonl, row 4: text is empty"):
        read(path)


def test_lists_of_words_cannot_come_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("tokens,tags\nchest pain,B-D I-D\n")
    with pytest.raises(DataError, match=r"row 1: tokens is text, .* use JSONL or Parquet"):
        load(str(path), "train", "tokens", DataConfig())


@pytest.mark.parametrize(
    "rows", ["Hello, world,pos,p\nBye, world,neg,p\n", "a,b,c\nHello, world,pos,p\n"]
)
def test_an_unquoted_comma_is_not_taken_for_a_column(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label,person\n" + rows)
    with pytest.raises(DataError, match=r"train\.csv, row [12]: 4 cells, but the header names 3"):
        load(str(path), "train", "text", COLUMNS)


def test_a_csv_file_of_a_header_alone_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\n")
    with pytest.raises(DataError, match=r"train\.csv: no records"):
        read(path)


# --- the hub --------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Dataset | Exception], list[Any]]:
    """Puts an answer in the hub's place; returns the list that requests are noted in."""

    def put(answer: Dataset | Exception) -> list[Any]:
        asked: list[Any] = []

        def load_dataset(name: str, config: str | None, *, split: str) -> Dataset:
            asked.append((name, config, split))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return put


Hub = Callable[[Dataset | Exception], list[Any]]


def test_class_ids_of_a_hub_data_set_become_names(hub: Hub) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["flu", "cold"])})
    asked = hub(Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features))
    assert load("owner/name", "test", "text", DataConfig()) == [
        TextRecord("a", "cold"),
        TextRecord("b", "flu"),
    ]
    assert asked == [("owner/name", None, "test")]


def test_tag_ids_of_a_hub_data_set_become_names(hub: Hub) -> None:
    tags = ClassLabel(names=["O", "B-X", "I-X"])
    features = Features({"words": Sequence(Value("string")), "ner": Sequence(tags)})
    asked = hub(
        Dataset.from_dict({"words": [["a", "b"], ["c"]], "ner": [[1, 2], [0]]}, features=features)
    )
    columns = DataConfig(tokens="words", tags="ner")
    assert load("owner/name:config", "train", "tokens", columns) == [
        TokenRecord(("a", "b"), ("B-X", "I-X")),
        TokenRecord(("c",), ("O",)),
    ]
    assert asked == [("owner/name", "config", "train")]


@pytest.mark.parametrize("missing", [-1, None])
def test_a_missing_class_id_is_a_missing_label(hub: Hub, missing: int | None) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["flu", "cold"])})
    hub(Dataset.from_dict({"text": ["a", "b"], "label": [0, missing]}, features=features))
    with pytest.raises(DataError, match=r"^owner/name \(train\), row 2: label has no value"):
        load("owner/name", "train", "text", DataConfig())


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (DatasetNotFoundError("x"), DataError, "nor a data set on the hub; correct data.test"),
        (DataFilesNotFoundError("x"), DataError, "nor a data set on the hub"),
        (ConnectionError("x"), NetworkError, "hub cannot be reached"),
        (OSError("x"), NetworkError, "give a file as data.test"),
        (ValueError('Unknown split "test".\nmore'), DataError, r'Unknown split "test"\.$'),
        (RuntimeError("Dataset scripts are no longer supported"), DataError, "scripts"),
    ],
)
def test_a_hub_data_set_that_cannot_be_had_is_named(
    hub: Hub, answer: Exception, kind: type[Exception], message: str
) -> None:
    hub(answer)
    with pytest.raises(kind, match=f"^owner/name: .*{message}"):
        load("owner/name", "test", "text", DataConfig())


def test_identifiers_of_a_hub_data_set_are_what_they_are(hub: Hub) -> None:
    count, columns = 2500, DataConfig(person="patient")
    numbers = [2**53 + number for number in range(count)]
    whole = Dataset.from_dict({"text": ["x"] * count, "label": [True] * count, "patient": numbers})
    hub(whole.select(range(count - 1, -1, -1)))  # rows by an index, over several batches
    assert load("owner/name", "train", "text", columns) == [
        TextRecord("x", "true", person=str(number)) for number in reversed(numbers)
    ]
    labels = ["a"] * (count - 1) + [""]
    hub(Dataset.from_dict({"text": ["x"] * count, "label": labels}))
    with pytest.raises(DataError, match=rf"\(test\), row {count}: label is empty"):
        load("owner/name", "test", "text", columns)
    hub(Dataset.from_dict({"text": ["x"], "label": ["a"], "patient": [1.0]}))
    with pytest.raises(DataError, match="row 1: patient is double"):
        load("owner/name", "train", "text", columns)


def test_an_empty_hub_data_set_is_refused(hub: Hub) -> None:
    hub(Dataset.from_dict({"text": [], "label": []}))
    with pytest.raises(DataError, match=r"^owner/name: no records"):
        load("owner/name", "train", "text", DataConfig())


# --- the generator --------------------------------------------------------------------------


def test_the_generator_holds_texts_only() -> None:
    with pytest.raises(DataError, match="holds texts with one label and pairs of texts"):
        load(SYNTHETIC, "train", "tokens", DataConfig())


def test_a_split_of_the_generator_is_its_train_or_test_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    halves = (EXPECTED[:3], EXPECTED[3:])
    stand_in = SimpleNamespace(hospital_notes=lambda: halves)
    monkeypatch.setitem(sys.modules, "cloister.data.synthetic", stand_in)
    assert load(SYNTHETIC, "train", "text", DataConfig()) == EXPECTED[:3]
    assert load(SYNTHETIC, "test", "text", DataConfig()) == EXPECTED[3:]
