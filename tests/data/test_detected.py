"""Encodings and separators are detected correctly or refused; no text changes silently."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.detected import detect_form
from cloister.data.lines import text_lines
from cloister.errors import DataError, UsageError
from tests.support.examples import tries
from tests.support.fuzzing import must_read

ZH = "病人说这几天头痛得很厉害，吃了一次药也没有好。服务很好，送餐也快！我们会再来的。"
FR = "Le patient était très fatigué. Il a été opéré à l'hôpital, où la fièvre a commencé."
KO = "안녕하세요 오늘은 날씨가 좋습니다 그래서 우리는 공원에 갔습니다 진료 기록을 확인하십시오"
JA = "今日は天気がいいので、公園に行きました。患者の記録を確認してください。"


def put(tmp_path: Path, content: bytes, name: str = "notes.csv") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (ZH, "utf-8", "utf-8"),
        (ZH, "utf-8-sig", "utf-8"),
        (ZH, "utf-16", "utf-16"),
        (ZH, "utf-16-le", "utf-16-le"),
        (ZH, "utf-16-be", "utf-16-be"),
        (ZH, "gb18030", "gb18030"),
        (FR, "latin-1", "latin-1"),
        (FR + " “quoted” 5 €", "cp1252", "cp1252"),
        ("plain", "ascii", "utf-8"),
    ],
)
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_file_is_read_as_it_was_written(
    tmp_path: Path, text: str, codec: str, name: str, mark: str
) -> None:
    path = put(tmp_path, f'text{mark}label\r\n"{text}"{mark}a\r\n'.encode(codec))
    found = detect_form(path)
    assert found.encoding is not None
    assert (found.form.encoding, found.form.separator) == (name, mark)
    assert found.encoding.line_endings == {"CRLF": 2}
    assert [row for _, row in found.rows()] == [{"text": text, "label": "a"}]
    assert found.encoding.why in str(found)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "gb18030"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_json_is_read_in_any_encoding(tmp_path: Path, codec: str, name: str) -> None:
    rows = [{"text": f"{ZH}{n}", "label": "内科"} for n in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = f"[{','.join(lines)}]" if name == "a.json" else "\n".join(lines)
    content = text.encode(codec)
    path = put(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    assert [row for _, row in detect_form(path).rows()] == rows


@pytest.mark.parametrize(
    ("text", "codec"),
    [(KO, "euc_kr"), (JA, "euc_jp"), (JA, "shift_jis"), ("王 李 赵", "gb18030")],
)
def test_what_the_rules_cannot_tell_is_refused_until_it_is_named(
    tmp_path: Path, text: str, codec: str
) -> None:
    path = put(tmp_path, f"text,label\n{text},a\n".encode(codec))
    with pytest.raises(DataError, match=r"line 2 is not UTF-8.*--encoding"):
        detect_form(path)
    found = detect_form(path, codec)
    assert [row["text"] for _, row in found.rows()] == [text]
    assert "given" in str(found)


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "utf-16"])
def test_a_damaged_byte_is_named_with_its_line_and_read_as_nothing_else(
    tmp_path: Path, codec: str
) -> None:
    content = f"text,label\n{ZH},a\n{ZH},b\n".encode(codec)
    broken = content[:-11] + (b"\x00\xdc" if codec == "utf-16" else b"\xff") + content[-11:]
    broken = broken if codec != "utf-16" else content[:-1]
    path = put(tmp_path, broken)
    with pytest.raises(DataError, match=r"line [34]"):
        detect_form(path)
    with pytest.raises(DataError, match="which --encoding names"):
        detect_form(path, codec)


@settings(deadline=None, max_examples=tries(60))
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_utf_8_is_never_taken_for_another_encoding(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = put(tmp_path_factory.mktemp("utf8"), text.encode(), "notes.jsonl")
    form = detect_form(path).form
    assert form.encoding == "utf-8"
    assert "".join(line for _, line in text_lines(path, "line", form)) == text.removeprefix(
        "\ufeff"
    )


@settings(deadline=None, max_examples=tries(60))
@given(content=st.binary(min_size=1, max_size=200))
def test_hostile_bytes_give_rows_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("a.csv", "a.jsonl", "a.conll", "a.csv.gz", "a.arrow"):
        path = put(folder, content, name)
        must_read(lambda path=path: list(itertools.islice(detect_form(path).rows(), 1000)))


@pytest.mark.parametrize("name", ["notes.csv.gz", "notes.CSV.GZ"])
def test_compressed_text_is_read_and_damage_is_told(tmp_path: Path, name: str) -> None:
    whole = gzip.compress(f"text;label\n{ZH};a\n".encode("gb18030") * 1)
    assert [r["text"] for _, r in detect_form(put(tmp_path, whole, name)).rows()] == [ZH]
    with pytest.raises(DataError, match="damaged or not gzip"):
        detect_form(put(tmp_path, whole[:-9], name))
    with pytest.raises(DataError, match="damaged or not gzip"):
        detect_form(put(tmp_path, b"text,label\nx,a\n", name))


def test_a_long_line_that_compresses_well_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = put(tmp_path, gzip.compress(b"text,label\n" + b"x" * 40_000_000), "notes.csv.gz")
    with pytest.raises(DataError, match=r"row 1: longer than 16 MiB|line 2: longer than 16 MiB"):
        list(detect_form(path).rows())


def test_two_separators_that_fit_are_refused_until_one_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, b"a;b,c\n1;2,3\n")
    with pytest.raises(DataError, match="its header contains commas and semicolons"):
        detect_form(path)
    assert [row for _, row in detect_form(path, separator="semicolon").rows()] == [
        {"a": "1", "b,c": "2,3"}
    ]


def test_a_ragged_row_keeps_its_number(tmp_path: Path) -> None:
    path = put(tmp_path, b"text;label\na;x\nb;y;z\n")
    with pytest.raises(DataError, match=r"row 2: 3 cells, but the header names 2"):
        list(detect_form(path).rows())


def test_quotes_can_be_plain_characters(tmp_path: Path) -> None:
    path = put(tmp_path, b'text\tlabel\n"No" she said\ta\n', "notes.tsv")
    with pytest.raises(DataError, match="text follows a closing quote"):
        list(detect_form(path).rows())
    rows = [row for _, row in detect_form(path, quotes=False).rows()]
    assert rows == [{"text": '"No" she said', "label": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "message"),
    [
        ("a.txt", b"x", {}, DataError, "not one of"),
        ("a.csv", b"", {}, DataError, "empty"),
        ("a.csv", b"text,label\n", {}, DataError, "no records"),
        ("a.csv", b"text\nx\n", {"encoding": "base64"}, UsageError, "unknown encoding"),
        ("a.csv", b"text\nx\n", {"separator": "ab"}, UsageError, "one character"),
        ("a.jsonl", b"{}", {"separator": ","}, UsageError, "not a CSV"),
        ("a.csv", b"\xff\xfe\x00\x00x", {}, DataError, "UTF-32"),
    ],
)
def test_one_message_for_what_cannot_be_read(
    tmp_path: Path,
    name: str,
    content: bytes,
    options: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    path = put(tmp_path, content, name)
    with pytest.raises(error, match=message):
        list(detect_form(path, **options).rows())


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path, name: str) -> None:
    row = b"x,a\n" if name == "a.csv" else b'{"text": "x", "label": "a"}\n'
    path = put(tmp_path, b"text,label\n" * (name == "a.csv") + row * 9, name)
    rows = detect_form(path).rows()
    next(rows)
    with path.open("ab") as file:
        file.write(row)
    with pytest.raises(DataError, match="changed while it was read"):
        list(rows)
