"""JSON literals are read exactly as written; damage is reported with its row."""

import json
import re
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.json_rows import json_rows
from cloister.data.lines import BOM
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.data.values import MOST_ROW_BYTES, Number
from cloister.errors import DataError

GOOD = b'{"text": "fever", "label": "a"}'
RECORD = TextRecord("fever", "a")


@pytest.fixture(params=["lines.jsonl", "array.json"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that `put` fills with rows as lines, or as an array."""
    return tmp_path / str(request.param)


def put(path: Path, rows: list[bytes]) -> None:
    path.write_bytes(
        b"\n".join(rows) if path.suffix == ".jsonl" else b"[" + b",\n".join(rows) + b"]"
    )


def read(path: Path) -> list[object]:
    return list(load(str(path), "test", "text", DataConfig()))


def test_literals_are_kept(path: Path) -> None:
    put(
        path,
        [b'{"a": [1, 1.0, 1e0, -0, 80276883110000012001, 1E400], "b": NaN, "c": [true, null]}'],
    )
    numbers = ("1", "1.0", "1e0", "-0", "80276883110000012001", "1E400")
    assert list(json_rows(path)) == [
        (1, {"a": [Number(n) for n in numbers], "b": Number("NaN"), "c": [True, None]})
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"text": "x", "label": "a", "label": "b"}', "duplicate key 'label'"),
        (b'{"text": "x", "label": "a", "more": {"k": 1, "k": 1}}', "duplicate key 'k'"),
        (b'{"text": "x", "label": NaN}', r"label is a number that is not an integer \(NaN\)"),
        (b'{"text": "x", "label": -Infinity}', r"not an integer \(-Infinity\)"),
        (b'{"text": "x", "label": 1e3}', r"not an integer \(1e3\)"),
        (b'{"text": "x", "label": 01}', "no valid JSON object"),
        (b'{"text": "x", "label": null}', r"label has no value \(null\)"),
        (b'{"text": "\\ud83d", "label": "a"}', "text has half of a surrogate pair"),
        (b'{"text": "x", "label": "\\udc00"}', "label has half of a surrogate pair"),
        (b'{"text": "\xff", "label": "a"}', "not UTF-8; save the file as UTF-8"),
        (b'{"text": "\xed\xa0\x80", "label": "a"}', "not UTF-8"),
        (b'{"text": "a\0b", "label": "a"}', "NUL byte|no valid JSON object"),
        (b'{"text": "a\tb", "label": "a"}', "no valid JSON object"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b"[" * 100_000, "no valid JSON object"),
        (b'{"text": "x", "label": "a"} 5', "more text follows|no , or ]"),
        (b'{"text": "x", "label": "a"}{}', "more text follows|no , or ]"),
        (b"{'text': 'x'}", "no valid JSON object"),
        (b'"fever"', "one in braces is needed|no valid JSON object"),
        (b"null", "one in braces is needed|no valid JSON object"),
        (BOM + GOOD, "no valid JSON object"),
        (b'{"text": "x"', "no valid JSON object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(path: Path, row: bytes, message: str) -> None:
    put(path, [GOOD, row, GOOD])
    with pytest.raises(DataError, match=rf"^{path.name}, row 2: .*({message})"):
        read(path)


def test_a_message_quotes_no_text(path: Path) -> None:
    put(path, [b'{"text": "the secret" "label": 1}'])
    with pytest.raises(DataError) as raised:
        read(path)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["\\u0000", "\\ud83e\\udd12", "\\u2028", "a\\/b", "\u2028", "\x7f", "\x85"]
)
def test_every_other_character_is_read(path: Path, text: str) -> None:
    put(path, [f'{{"text": "x{text}", "label": "a"}}'.encode()])
    assert read(path) == [TextRecord("x" + json.loads(f'"{text}"'), "a")]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n \t\n", b"\r\n\r\n"])
@pytest.mark.parametrize("start", [b"", BOM, b"\n", b"  \r\n", BOM + b"\n"])
def test_line_breaks_blanks_and_a_byte_order_mark_change_nothing(
    tmp_path: Path, start: bytes, ending: bytes
) -> None:
    lines, array = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_bytes(start + GOOD + b"\r\n" + GOOD + ending)
    array.write_bytes(start + b"[" + GOOD + b"\r\n ,\r\n" + GOOD + b"]" + ending)
    assert read(lines) == read(array) == [RECORD, RECORD]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_file_is_an_array_or_lines_as_it_begins(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(GOOD + b"\n" + GOOD)
    assert read(path) == [RECORD, RECORD]
    path.write_bytes(b"[" + GOOD + b"]")
    assert read(path) == [RECORD]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(path: Path, encoding: str) -> None:
    path.write_bytes(GOOD.decode().encode(encoding))
    with pytest.raises(DataError, match=f"{path.name}.*(UTF-16|NUL byte)"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", ": no records"),
        (b"[ \n]\n", ": no records"),
        (BOM, ": no records"),
        (b"[", r", row 1: no valid"),
        (b"[" + GOOD, ", row 1: no , or ]"),
        (b"[" + GOOD + b",]", ", row 2: no valid"),
        (b"[" + GOOD + b"] []", ": more text follows"),
        (b"[" + GOOD + b" " + GOOD + b"]", ", row 1: no , or ]"),
        (b"[,", ", row 1: no valid"),
        (b"[" + GOOD + b',{"te', ", row 2: no valid JSON object"),
    ],
)
def test_a_damaged_array_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json{message}"):
        read(path)


def test_a_row_larger_than_the_bound_is_refused_before_it_fills_the_memory(path: Path) -> None:
    put(path, [GOOD, b'{"text": "' + b"x" * MOST_ROW_BYTES * 2 + b'", "label": "a"}'])
    with pytest.raises(DataError, match=rf"{path.name}, row 2: .*16 MiB, the most"):
        read(path)


def test_a_row_just_below_the_bound_is_read_wherever_chunks_end(path: Path) -> None:
    texts = ["ä" * (2**19 + step) for step in range(3)] + ["x" * (MOST_ROW_BYTES - 100)]
    put(path, [json.dumps({"text": t, "label": "a"}, ensure_ascii=False).encode() for t in texts])
    assert read(path) == [TextRecord(text, "a") for text in texts]


@pytest.mark.parametrize(
    "late",
    [b'"patient": "p"', b'"patient": 80276883110000012001', b'"more": {"x": []}, "patient": "7"'],
)
def test_a_column_or_type_that_appears_late_is_read(path: Path, late: bytes) -> None:
    """A reader that guesses from the first 10 MiB takes it for damage."""
    put(
        path,
        [
            *[b'{"text": "%s", "label": "a"}' % (b"x" * 1000)] * 12_000,
            b'{"text": "y", "label": "a", %s}' % late,
        ],
    )
    assert len(read(path)) == 12_001
    with pytest.raises(DataError, match=r"row 1: no column 'patient'"):
        load(str(path), "train", "text", DataConfig(person="patient"))


@pytest.mark.parametrize(
    "names", [("type", "message"), ("message", "type"), ("role", "content"), ("image", "audio")]
)
def test_no_name_of_a_column_means_anything(path: Path, names: tuple[str, str]) -> None:
    text, label = names
    put(path, [json.dumps({text: f"note {i}", label: f"l{i}", "id": i}).encode() for i in range(3)])
    found = load(str(path), "train", "text", DataConfig(text=text, label=label))
    assert found == [TextRecord(f"note {i}", f"l{i}") for i in range(3)]


def test_a_row_of_an_array_is_counted_from_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b",".join([GOOD] * 5 + [b'{"text": ""}']) + b"]")
    with pytest.raises(DataError, match=re.escape("a.json, row 6: text is empty")):
        read(path)
