"""A cleaned file has the expected rows and log, and is complete or does not exist."""

import csv
import gzip
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.data.clean.log import count, log_path
from cloister.data.clean.rows import RowOptions
from cloister.data.clean.run import CleanOptions, clean_file
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import ChatRecord, Message, TextRecord, TokenRecord
from cloister.errors import CloisterError, DataError, UsageError
from tests.support.examples import tries

ZH = "病人说这几天头痛得很厉害，吃了药也没有好"


def put(tmp_path: Path, rows: Sequence[dict[str, Any]], name: str = "notes.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def entries(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["rule"]: entry for entry in json.loads(log_path(path).read_text())["rules"]}


def test_a_messy_chinese_table_becomes_records(tmp_path: Path) -> None:
    source, out = tmp_path / "门诊.csv", tmp_path / "clean.jsonl"
    table = (
        f"主诉;科室;病人;备注\r\n{ZH}<br>　２天;神经科 ;1;x\r\n{ZH};神经科;2;\r\n"
        f"发自我的 iPhone;神经科;2;\r\n“{ZH}”;;3;\r\n"
    )
    source.write_bytes(table.encode("gb18030"))
    columns = {"text": "主诉", "label": "科室", "person": "病人"}
    log = clean_file(source, out, CleanOptions(columns=columns))
    assert read(out) == [
        {"text": f"{ZH}\n2天", "label": "神经科", "person": "1"},
        {"text": ZH, "label": "神经科", "person": "2"},
    ]
    assert load(str(out), "train", "text", DataConfig(person="person")) == [
        TextRecord(f"{ZH}\n2天", "神经科", None, "1"),
        TextRecord(ZH, "神经科", None, "2"),
    ]
    found = entries(out)
    assert found["html"]["changed_rows"] == found["label"]["changed_rows"] == [[1, 1]]
    assert found["empty"]["dropped_rows"] == [[3, 3]]
    assert found["no-label"]["dropped_rows"] == [[4, 4]]
    assert log.to_json() == json.loads(log_path(out).read_text())
    assert (log.source["encoding"], log.source["rows"], log.output["rows"]) == ("gb18030", 4, 2)
    assert log.left_out == ["备注"]
    assert not log.couples_units
    for path in (out, log_path(out)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ZH not in log_path(out).read_text()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.tsv", "out.csv.gz", "out.jsonl.gz"])
def test_any_format_to_any_other_and_back(tmp_path: Path, name: str) -> None:
    rows = [{"text": f'{ZH}, "a"\nb;', "label": "7"}, {"text": "x\ty", "label": "a,b"}]
    first, second = tmp_path / name, tmp_path / "back.jsonl"
    clean_file(put(tmp_path, rows), first)
    clean_file(first, second)
    assert read(second) == [
        {"text": f'{ZH}, "a"\nb;', "label": "7"},
        {"text": "x y", "label": "a,b"},
    ]
    if name == "out.csv":
        with first.open(newline="", encoding="utf-8") as file:
            assert next(csv.reader(file)) == ["text", "label"]
    if name.endswith(".gz"):
        again = tmp_path / f"again-{name}"
        clean_file(first, again)
        assert again.read_bytes() == first.read_bytes()
        assert gzip.decompress(first.read_bytes())


TEXTS = st.sampled_from(
    [ZH, ZH + "。", "<b>hi</b>", "&amp;lt;", "ＡＢＣ", " ", "\u200b", "发自我的手机"]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXTS | st.text(max_size=20),
            "label": st.sampled_from(["a", "a ", "Ａ", "", "b"]),
            "person": st.sampled_from(["1", "2"]),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(
    deadline=None,
    max_examples=tries(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=ROWS,
    name=st.sampled_from(["jsonl", "csv", "tsv"]),
    duplicates=st.sampled_from(["keep", "exact", "near"]),
)
def test_a_clean_file_cleaned_again_is_the_same_and_no_row_depends_on_another(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], name: str, duplicates: Any
) -> None:
    folder = tmp_path_factory.mktemp("clean")
    options = CleanOptions(columns={k: k for k in rows[0]}, duplicates=duplicates)
    once, twice = folder / f"once.{name}", folder / f"twice.{name}"
    source = put(folder, rows)
    try:
        clean_file(source, once, options)
    except DataError:  # no row is left
        assert sorted(folder.iterdir()) == [source]
        return
    clean_file(once, twice, options)
    assert twice.read_bytes() == once.read_bytes()
    if duplicates != "keep" or name != "jsonl":
        return
    alone = []
    for number, row in enumerate(rows):
        out = folder / f"{number}.jsonl"
        try:
            clean_file(put(folder, [row], f"one{number}.jsonl"), out, options)
        except DataError:
            continue
        alone += read(out)
    assert read(once) == alone


def test_copies_go_when_asked_and_the_log_says_that_units_are_coupled(tmp_path: Path) -> None:
    texts = [ZH, "fever", ZH, ZH + "。", "<b>fever</b>"]
    source = put(tmp_path, [{"text": text, "label": "a"} for text in texts])
    kept: dict[Any, list[str]] = {"exact": [ZH, "fever", ZH + "。"], "near": [ZH, "fever"]}
    for kind, expected in kept.items():
        out = tmp_path / f"{kind}.jsonl"
        log = clean_file(source, out, CleanOptions(duplicates=kind))
        assert [row["text"] for row in read(out)] == expected
        document = json.loads(log_path(out).read_text())
        assert log.couples_units
        assert document["couples_units"] is True
        assert "epsilon is about the units of this file" in document["epsilon"]
        assert entries(out)[f"{kind}-duplicates"]["dropped"] == 5 - len(expected)


def test_filters_and_skipped_rules(tmp_path: Path) -> None:
    english = "The patient had a headache for three days."
    rows = [{"text": text} for text in (ZH, english, "<b>x</b>")]
    out = tmp_path / "zh.jsonl"
    clean_file(put(tmp_path, rows), out, CleanOptions(rows=RowOptions(languages=("zh",))))
    assert read(out) == [{"text": ZH}]
    assert entries(out)["language"]["dropped"] == 2
    out = tmp_path / "long.jsonl"
    options = RowOptions(skip=("html",), min_chars=8, max_chars=30)
    clean_file(put(tmp_path, rows), out, CleanOptions(rows=options))
    assert read(out) == [{"text": ZH}, {"text": "<b>x</b>"}]
    assert entries(out)["length"]["dropped_rows"] == [[2, 2]]


def test_sentences_conversations_and_pairs(tmp_path: Path) -> None:
    sentence = {"tokens": ["头", "Ａ", "\u3000"], "tags": ["B-X", "E-X", "O"], "id": 5}
    out = tmp_path / "ner.jsonl"
    clean_file(put(tmp_path, [sentence]), out, CleanOptions(columns={"id": "id"}))
    assert read(out) == [{"tokens": ["头", "A", "\u3000"], "tags": ["B-X", "I-X", "O"], "id": 5}]
    assert entries(out)["tags"]["changed"] == entries(out)["width"]["changed"] == 1
    assert load(str(out), "train", "tokens", DataConfig()) == [
        TokenRecord(("头", "A", "\u3000"), ("B-X", "I-X", "O"))
    ]
    chat = {"instruction": "<p>q</p>", "output": "a&amp;b", "system": ""}
    out = tmp_path / "chat.jsonl"
    clean_file(put(tmp_path, [chat]), out)
    turns = (Message("user", "q"), Message("assistant", "a&b"))
    assert load(str(out), "train", "messages", DataConfig()) == [ChatRecord(turns)]
    pair = {"prompt": "q ", "chosen": "a", "rejected": "b "}
    out = tmp_path / "pair.jsonl"
    clean_file(put(tmp_path, [pair]), out)
    q, a, b = Message("user", "q"), Message("assistant", "a"), Message("assistant", "b")
    assert load(str(out), "train", "messages", DataConfig()) == [
        ChatRecord((q, a), rejected=(q, b))
    ]


def test_reserved_and_kept_columns_stay(tmp_path: Path) -> None:
    rows = [{"text": "x", "cloister_unit": "3", "age": 40, "sex": "f"}, {"text": "y"}]
    out = tmp_path / "out.jsonl"
    log = clean_file(put(tmp_path, rows), out, CleanOptions(keep=("age",)))
    assert read(out) == [{"text": "x", "cloister_unit": "3", "age": 40}, {"text": "y"}]
    assert log.left_out == ["sex"]


@pytest.mark.parametrize(
    ("rows", "out", "options", "error", "message"),
    [
        ([{"text": "x"}], "notes.jsonl", {}, UsageError, "exists already"),
        ([{"text": "x"}], "out.json", {}, UsageError, "can be written with this ending"),
        ([{"text": "x"}], "out.parquet", {}, UsageError, "can be written with this ending"),
        (
            [{"text": " "}],
            "out.jsonl",
            {},
            DataError,
            r"none of 1 row is left: 1 by the rule empty \(rows left out whose text is empty\)",
        ),
        (
            [{"text": " "}, {"text": "a short one"}, {"text": "ab"}, {"text": "b" * 9}],
            "out.jsonl",
            {"rows": RowOptions(min_chars=3, max_chars=5)},
            DataError,
            r"none of 4 rows is left: 3 by the rule length \(.*\), 1 by the rule empty \(",
        ),
        ([{"text": "x"}], "out.jsonl", {"columns": {"text": "y"}}, UsageError, "no such column"),
        (
            [{"text": "x"}],
            "out.jsonl",
            {"keep": ("text",)},
            UsageError,
            "a standard column has that name",
        ),
        (
            [{"tokens": ["x"], "tags": ["O"]}],
            "out.csv",
            {},
            UsageError,
            "tokens are lists",
        ),
        (
            [{"text": "x", "k": "1"}, {"text": "y", "k": "1"}],
            "out.jsonl",
            {"columns": {"id": "k"}},
            DataError,
            "row 2: duplicate identifier, also in row 1",
        ),
        (
            [{"text": "x", "k": "1"}, {"text": "y", "k": 1}],
            "out.jsonl",
            {"columns": {"person": "k"}},
            DataError,
            "row 2: k is an integer here and text in row 1",
        ),
    ],
)
def test_nothing_is_written_half(
    tmp_path: Path, rows: Any, out: str, options: Any, error: type[Exception], message: str
) -> None:
    source = put(tmp_path, rows)
    before = source.read_bytes()
    with pytest.raises(error, match=message):
        clean_file(source, tmp_path / out, CleanOptions(**options))
    assert sorted(tmp_path.iterdir()) == [source]
    assert source.read_bytes() == before


@pytest.mark.parametrize("options", [{"skip": ("none",)}, {"min_chars": 9, "max_chars": 3}])
def test_options_that_cannot_be_meant_are_refused(options: Any) -> None:
    with pytest.raises(UsageError):
        RowOptions(**options)
    with pytest.raises(UsageError, match="unknown language"):
        RowOptions(languages=("klingon",))


@pytest.mark.parametrize(
    "content",
    [b"text,label\na,b\nc\n", b"text,label\na,b\nc\0,d\n", b'text,label\na,b\n"c,d\n'],
)
def test_a_damaged_row_ends_it_with_its_number(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "notes.csv"
    source.write_bytes(content)
    with pytest.raises(CloisterError, match=r"row 2|line 3"):
        clean_file(source, tmp_path / "out.jsonl")
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_file_that_is_written_meanwhile_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path, [{"text": f"fever {n}"} for n in range(3000)])

    def append(_: int) -> None:
        with source.open("a", encoding="utf-8") as file:
            file.write('\n{"text": "more"}')

    with pytest.raises(DataError, match="changed while it was read"):
        clean_file(source, tmp_path / "out.jsonl", CleanOptions(on_rows=append))
    assert sorted(tmp_path.iterdir()) == [source]


def test_rows_of_a_log_are_ranges() -> None:
    assert count([[1, 3], [7, 7]]) == 4
