"""Values that other programs write are read back exactly."""

import csv
import io
import json
import string
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import ChatRecord, Message, TextRecord, TokenRecord
from cloister.errors import BadFileError
from tests.support.examples import tries
from tests.support.formats import FORMATS

COLUMNS = DataConfig(person="patient")
SLOW = settings(
    max_examples=tries(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Spellings that readers like to change: numbers, dates, missing values, truths, blanks, quotes.
TROUBLES = (
    "007",
    "7",
    "7.0",
    "7e0",
    "+7",
    "-0",
    "0x1F",
    "1_000",
    "1,000",
    "1e400",
    "9" * 20,
    "9" * 400,
    "NA",
    "N/A",
    "nan",
    "NaN",
    "null",
    "NULL",
    "None",
    "true",
    "True",
    "TRUE",
    "no",
    "Inf",
    "2020-01-01",
    "2020-01-01T00:00:00Z",
    "12:30",
    "1/2/2020",
    " x",
    "x ",
    "\t",
    "'",
    '"',
    '""',
    '"x"',
    "a,b",
    "a;b",
    "a\nb",
    "a\r\nb",
    "a\rb",
    "\u2028",
    "\x85",
    "\ufeffx",
    "é",
    "e\u0301",
    "頭痛",
    "🤒",
    "\\",
    "\\n",
    "{}",
    "[1]",
    "#",
    "=1+1",
    "%s",
)
# A CSV file holds every character but NUL, which marks it as no text.
TEXT = st.one_of(
    st.sampled_from(TROUBLES), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)
NAMES = TEXT.filter(bool)
BODIES = TEXT.filter(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries({"text": BODIES, "label": NAMES, "site": NAMES, "patient": NAMES}),
    min_size=1,
    max_size=8,
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows with the standard library and pyarrow, of which reading uses other parts."""
    if path.suffix == ".jsonl":
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0], quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(text.getvalue().encode())
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path) -> list[Any]:
    return load(str(path), "train", "text", COLUMNS, sites=True)


def expected(rows: list[dict[str, str]]) -> list[TextRecord]:
    return [TextRecord(r["text"], r["label"], r["site"], r["patient"]) for r in rows]


TROUBLED = [
    {"text": t if t.strip() else "x", "label": t, "site": t, "patient": t} for t in TROUBLES
]


@pytest.mark.parametrize("suffix", FORMATS)
@SLOW
@given(rows=ROWS)
@example(rows=TROUBLED)
def test_texts_are_read_as_they_were_written(
    tmp_path: Path, suffix: str, rows: list[dict[str, str]]
) -> None:
    assert read(write(tmp_path / f"train{suffix}", rows)) == expected(rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@SLOW
@given(
    words=st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, max_size=4),
    types=st.lists(NAMES.filter(lambda t: "\n" not in t), min_size=1, max_size=4),
)
def test_words_tags_and_turns_are_read_as_they_were_written(
    tmp_path: Path, suffix: str, words: list[list[str]], types: list[str]
) -> None:
    tags = [[f"B-{types[0]}", *["O"] * (len(row) - 1)] for row in words]
    columns = DataConfig()
    rows = [{"tokens": row, "tags": each} for row, each in zip(words, tags, strict=True)]
    path = write(tmp_path / f"ner{suffix}", rows)
    assert load(str(path), "train", "tokens", columns) == [
        TokenRecord(tuple(row), tuple(each)) for row, each in zip(words, tags, strict=True)
    ]
    chats = [
        [{"role": "user", "content": w}, {"role": "assistant", "content": f"x{w}"}]
        for row in words
        for w in row
    ]
    path = write(tmp_path / f"chat{suffix}", [{"messages": chat} for chat in chats])
    assert load(str(path), "train", "messages", columns) == [
        ChatRecord(tuple(Message(**turn) for turn in chat)) for chat in chats
    ]


INTEGERS = st.integers(-(10**40), 10**40)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@SLOW
@given(numbers=st.lists(INTEGERS, min_size=1, max_size=8))
@example(numbers=[2**53, 2**53 + 1, 2**64, 80276883110000012000, 80276883110000012001, 0, -1])
@example(numbers=[10**5000, 10**5000 + 1])
def test_integers_of_any_length_stay_what_they_are(
    tmp_path: Path, suffix: str, numbers: list[int]
) -> None:
    digits = [decimal(number) for number in numbers]
    objects = [f'{{"text": "x", "label": {d}, "site": {d}, "patient": {d}}}' for d in digits]
    path = tmp_path / f"train{suffix}"
    path.write_text("\n".join(objects) if suffix == ".jsonl" else f"[{','.join(objects)}]")
    assert read(path) == [TextRecord("x", d, d, d) for d in digits]


def decimal(number: int) -> str:
    """Digits of an integer of any length, which `str` refuses beyond 4,300."""
    sign, digits, rest = "-" * (number < 0), "", abs(number)
    while rest >= 10**1000:
        rest, low = divmod(rest, 10**1000)
        digits = f"{low:01000d}" + digits
    return sign + str(rest) + digits


MIXED = (
    [json.dumps(f"{i:03d}") for i in range(1, 79)] + ["80"],  # 79 persons: a guess makes 40
    ['"01"', "1", '"001"'],
    ['"1"', "1"],
    ["1", '"1"'],
    ["7", '"x"'],
    ["true", '"true"'],
    ["1", "true"],
)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("column", ["label", "patient", "site"])
@pytest.mark.parametrize("written", MIXED)
def test_a_column_of_several_kinds_is_refused_with_its_row(
    tmp_path: Path, suffix: str, column: str, written: list[str]
) -> None:
    plain = {"text": '"x"', "label": '"a"', "patient": '"p"', "site": '"s"'}
    objects = [
        "{" + ",".join(f'"{k}": {v}' for k, v in {**plain, column: value}.items()) + "}"
        for value in written
    ]
    path = tmp_path / f"train{suffix}"
    path.write_text("\n".join(objects) if suffix == ".jsonl" else f"[{','.join(objects)}]")
    with pytest.raises(BadFileError, match=rf"^{path.name}, row \d+: {column} is "):
        read(path)


WIDE = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint8(): (0, 2**8 - 1),
    pa.uint16(): (0, 2**16 - 1),
    pa.uint32(): (0, 2**32 - 1),
    pa.uint64(): (0, 2**64 - 1),
    pa.decimal128(38, 0): (-(10**38) + 1, 10**38 - 1),
    pa.decimal256(76, 0): (-(10**76) + 1, 10**76 - 1),
}


@pytest.mark.parametrize("kind", WIDE, ids=str)
def test_integers_of_any_parquet_type_stay_what_they_are(tmp_path: Path, kind: Any) -> None:
    low, high = WIDE[kind]
    numbers = [low, low + 1, 0, 1, high - 1, high]
    exact = Decimal if "decimal" in str(kind) else int
    column = pa.array([exact(number) for number in numbers], kind)
    # pyarrow makes no categories of decimals.
    for written in (column,) if exact is Decimal else (column, column.dictionary_encode()):
        table = {"text": ["x"] * 6, "label": written, "site": written, "patient": written}
        pq.write_table(pa.table(table), tmp_path / "train.parquet")
        digits = [str(number) for number in numbers]
        assert read(tmp_path / "train.parquet") == [TextRecord("x", d, d, d) for d in digits]


def refusal(path: Path) -> str | None:
    """What reading says of a bad file; None where it is read. Any other exception is a fault."""
    try:
        records = load(str(path), "test", "text", DataConfig())
    except BadFileError as error:
        return str(error)
    assert all(type(r.text) is str is type(r.label) for r in records if isinstance(r, TextRecord))
    return None


@settings(SLOW, max_examples=tries(300))
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.text(string.printable, max_size=200).map(str.encode),
        st.lists(
            st.sampled_from(
                [
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b",",
                    b":",
                    b'"',
                    b'""',
                    b"\n",
                    b"\r",
                    b"\0",
                    b"\xff",
                    b'"text"',
                    b'"label"',
                    b"text,label",
                    b'"x"',
                    b"1",
                    b"1e9",
                    b"NaN",
                    b"null",
                    b"\\ud800",
                    b"\xef\xbb\xbf",
                    b"PAR1",
                    b'{"text":"a","label":"b"}',
                ]
            ),
            max_size=40,
        ).map(b"".join),
    )
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_any_bytes_are_read_or_refused_as_one_bad_file(
    tmp_path: Path, suffix: str, data: bytes
) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(data)
    said = refusal(path)
    assert said is None or (f"train{suffix}" in said and said.isprintable())


@settings(SLOW, max_examples=tries(300))
@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused_as_one_bad_file(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = write(tmp_path / "train.parquet", [{"text": "fever", "label": "a"}] * 5)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    said = refusal(path)
    assert said is None or ("train.parquet" in said and "\n" not in said)
