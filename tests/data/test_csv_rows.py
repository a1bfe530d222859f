"""A CSV cell is read exactly as it is written; damage is reported with its row."""

import csv
import threading
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.data.values import MOST_ROW_BYTES
from cloister.errors import DataError

COLUMNS = DataConfig(person="patient")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def read(path: Path, columns: DataConfig = COLUMNS) -> list[object]:
    return list(load(str(path), "train", "text", columns))


@pytest.mark.parametrize(
    "cell",
    [
        "NA",
        "null",
        "true",
        "1e3",
        "007",
        "7",
        "7.0",
        "2020-01-01",
        " x",
        "x ",
        "a'b",
        'a"b',
        "#",
        "-",
    ],
)
def test_a_cell_is_a_text(path: Path, cell: str) -> None:
    path.write_text(f"text,label,patient\nfever,{cell},{cell}\n")
    assert read(path) == [TextRecord("fever", cell, None, cell)]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_breaks_and_a_byte_order_mark_change_nothing(
    path: Path, start: bytes, ending: bytes
) -> None:
    path.write_bytes(start + b'text,label,patient\r\n"a\r\nb",x,1\r\n\r\n"c""d,",y,"2"' + ending)
    assert read(path) == [TextRecord("a\r\nb", "x", None, "1"), TextRecord('c"d,', "y", None, "2")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label,patient,label\nx,a,1,b\n", ": duplicate header 'label'"),
        (b"text,label,patient,note,note\nx,a,1,b,c\n", ": duplicate header 'note'"),
        (b"text,label,patient\nx,a,1\ny,b\n", ", row 2: 2 cells, but the header names 3 columns"),
        (b"text,label,patient\nx,a,1\ny,b,c,2\n", ", row 2: 4 cells, but the header"),
        (b"text,label,patient\nx,a,1\ny,b,1,\n", ", row 2: 4 cells"),
        (b"text,label,patient\nx,a,1\n \n", ", row 2: 1 cells"),
        (b'text,label,patient\nx,a,1\n"y"z,b,2\n', ", row 2: text follows a closing quote"),
        (b'text,label,patient\nx,a,1\n"y,b,2\n', ", row 2: a quote is opened but not closed"),
        (
            b"text,label,patient\nx,a,1\ny\rz,b,2\n",
            ", row 2: a carriage return without a line feed",
        ),
        (b"text,label,patient\rx,a,1\r", ", header: a carriage return without a line feed"),
        (b"text,label,patient\nx,a,1\ny\0,b,2\n", ", line 3: has a NUL byte"),
        (b"text,label,patient\nx,a,1\n\xe4,b,2\n", ", line 3: not UTF-8"),
        (b"text,label,patient\nx,a,1\ny,,2\n", ", row 2: label is empty"),
        (b"text,label,patient\nx,a,1\ny,b,\n", ", row 2: patient is empty"),
        (b'text,label,patient\nx,a,1\ny,b,""\n', ", row 2: patient is empty"),
        (b"text;label;patient\nx;a;1\n", ": its header is one column that contains semicolons"),
        (b"text\tlabel\tpatient\nx\ta\t1\n", ": its header is one column that contains tabs"),
        (b"text, label,patient\nx,a,1\n", r", row 1: no column 'label' \(found: text,  label"),
        ("text,label,patient\nx,a,1\n".encode("utf-16"), ": is UTF-16"),
        ("text,label,patient\nx,a,1\n".encode("utf-16-le"), ", line 1: has a NUL byte"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.csv{message}"):
        read(path)


def test_columns_without_a_name_may_be_several(path: Path) -> None:
    path.write_text("text,label,patient,,\nx,a,1,,\n")
    assert read(path) == [TextRecord("x", "a", None, "1")]


def test_a_long_text_is_read_and_the_process_s_bound_stays(path: Path) -> None:
    before = csv.field_size_limit()
    text = "fever " * (before // 2)
    path.write_text(f"text,label,patient\n{text},a,1\n")
    found = read(path)
    assert found == [TextRecord(text, "a", None, "1")]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "start", [b'text,label,patient\nx,a,1\n"', b'text,label,patient\nx,a,1\n"\n', b'"\n']
)
def test_a_quote_left_open_does_not_take_the_rest_of_a_large_file(path: Path, start: bytes) -> None:
    path.write_bytes(start + (b"x" * 999 + b"\n") * (MOST_ROW_BYTES // 1000 + 10_000))
    with pytest.raises(DataError, match=r"train\.csv, (row 2|header): longer than 16 MiB"):
        read(path)


def test_two_threads_read_long_texts(tmp_path: Path) -> None:
    text, found = "fever " * csv.field_size_limit(), dict[int, int]()
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text("text,label\n" + f"{text},a\n" * 5)

    def work(number: int) -> None:
        found[number] = len(read(tmp_path / f"{number}.csv", DataConfig()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: 5, 1: 5}
