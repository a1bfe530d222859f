"""Rows of SQLite queries become records, over a connection that cannot write."""

import json
import sqlite3
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.sql import connection, run
from cloister.data.sql.run import sql_file
from cloister.data.step_log import log_of
from cloister.errors import BadFileError, CloisterError, DataError, UsageError

QUERY = "SELECT note AS text, ward AS label, patient AS person FROM notes ORDER BY rowid"


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    path = tmp_path / "clinic ?#.db"  # characters that a URI gives a meaning
    with sqlite3.connect(path) as made:
        made.execute(
            "CREATE TABLE notes (note TEXT, ward TEXT, patient INTEGER, weight, photo BLOB)"
        )
        rows = [
            ("chest pain", "heart", 7, 1.5, None),
            ('50% "sure"', "heart", 9007199254740993, 2, b"\x00"),
        ]
        made.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)
    made.close()
    return path


def dsn(path: Path) -> str:
    from sqlalchemy import URL

    return str(URL.create("sqlite", database=str(path)))


def test_rows_are_written_and_read_by_training(clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "notes.jsonl"
    report = sql_file(dsn(clinic), QUERY, out)
    assert (report.rows, report.columns) == (2, ["text", "label", "person"])
    lines = out.read_text().splitlines()
    # An integer beyond a float's digits keeps all of its own.
    assert lines[1] == '{"text": "50% \\"sure\\"", "label": "heart", "person": 9007199254740993}'
    records = load(str(out), "train", "text", DataConfig(train=str(out), test="t", person="person"))
    assert [record.person for record in records] == ["7", "9007199254740993"]
    log = json.loads(log_of(out).read_text())["steps"][0]
    assert log["settings"] == {"query": QUERY}
    assert log["source"] == {"database": "sqlite", "name": str(clinic)}


def test_csv_and_parquet_are_written_too(clinic: Path, tmp_path: Path) -> None:
    for ending in (".csv", ".parquet"):
        out = tmp_path / f"notes{ending}"
        sql_file(dsn(clinic), QUERY, out)
        found = load(str(out), "train", "text", DataConfig(train=str(out), test="t"))
        assert [record.text for record in found] == ["chest pain", '50% "sure"']  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM notes",
        "WITH x AS (SELECT 1) INSERT INTO notes SELECT 1, 1, 1, 1, 1",
        "PRAGMA query_only = OFF",
        "PRAGMA user_version = 7",
        "ATTACH DATABASE 'other.db' AS other",
        "CREATE TABLE more (a)",
        "VACUUM",
    ],
)
def test_what_writes_is_refused_by_the_connection_itself(
    clinic: Path, tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the statement is taken away, so that the connection alone stands against it."""
    before = clinic.read_bytes()
    with pytest.raises(UsageError, match="--query"):
        sql_file(dsn(clinic), query, tmp_path / "out.jsonl")
    monkeypatch.setattr(run, "check_reading", lambda text: text)
    with pytest.raises(DataError, match=r"not authorized|denied|prohibited|readonly"):
        sql_file(dsn(clinic), query, tmp_path / "out.jsonl")
    assert clinic.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [clinic.name]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT absent FROM notes", DataError, "no such column: absent"),
        ("SELECT 1 AS a, 2 AS a", UsageError, "duplicate column 'a'"),
        ("SELECT * FROM notes WHERE 0", DataError, "returns no row"),
        ("SELECT photo AS text FROM notes", DataError, "row 2 of the query: text is a bytes"),
        ("SELECT 1e999 AS text", DataError, "is a float"),
        ("SELECT ? AS text", DataError, "--dsn"),
        ("SELECT '\udcff' AS text", DataError, "surrogates not allowed"),  # a byte of a terminal
    ],
)
def test_a_query_that_gives_no_records_ends_in_one_message(
    clinic: Path, tmp_path: Path, query: str, error: type[CloisterError], message: str
) -> None:
    with pytest.raises(error, match=message):
        sql_file(dsn(clinic), query, tmp_path / "out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == [clinic.name]


def test_a_row_may_hold_as_much_as_a_row_of_a_file(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MOST_ROW_BYTES", 9)
    with pytest.raises(DataError, match="row 1 of the query: longer than"):
        sql_file(dsn(clinic), "SELECT note AS text FROM notes", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sqlite://", "no file is named"),
        ("sqlite:///missing.db", "missing.db: "),
        ("mysql://host/db", "only these two"),
        ("s3cret", "not a valid address"),
        ("postgresql://me:s3cret@host/db", "has a password"),
        ("postgresql://me@host/db?password=s3cret", "has a password"),
        ("postgresql://me@host:s3cret/db", "not a valid address"),
        ("postgresql://me@host..s3/db", "idna"),  # no name of a machine has an empty part
    ],
)
def test_an_address_that_is_refused_is_not_repeated_with_its_password(
    tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(CloisterError, match=message) as refused:
        sql_file(given, "SELECT 1 AS text", tmp_path / "out.jsonl")
    assert "s3cret" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(connection.VARIABLE, raising=False)
    assert connection.password(None) is None
    monkeypatch.setenv(connection.VARIABLE, "from-environment")
    assert connection.password(None) == "from-environment"
    file = tmp_path / "password"
    file.write_text("from file\nand more\n")
    assert connection.password(file) == "from file"
    for content in (b"", b"\n", b"\xff", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(BadFileError, match="--password-file"):
            connection.password(file)


def test_memory_does_not_grow_with_the_rows(clinic: Path, tmp_path: Path) -> None:
    import tracemalloc

    def peak(rows: int) -> int:
        query = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
            "SELECT hex(zeroblob(500)) AS text FROM n"
        )
        out = tmp_path / f"{rows}.jsonl"
        tracemalloc.start()
        sql_file(dsn(clinic), query, out)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is imported at first
    # 4,000 rows of 1,000 characters would be 4 MB in memory.
    assert peak(4000) < peak(400) + 500_000
