"""Rows of PostgreSQL's queries, on a real server that this file starts and stops."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloister.data.sql import connection, run
from cloister.data.sql.run import sql_file
from cloister.data.step_log import log_of
from cloister.errors import DataError
from tests.support.postgres import PASSWORD, postgres, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres") / "server") as dsn:
        execute(
            dsn,
            "CREATE TABLE notes (note text, ward text, patient bigint, written timestamptz, "
            "more jsonb, share numeric)",
            "INSERT INTO notes SELECT 'pain ' || i, 'heart', i / 4, '2024-03-05 10:00+00', "
            "'{\"a\": [1]}', 0.10 FROM generate_series(0, 999) AS i",
            "CREATE FUNCTION written() RETURNS int LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO notes(note) VALUES ('planted'); RETURN 1; END $$",
        )
        yield dsn


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.VARIABLE, PASSWORD)


def execute(dsn: str, *statements: str) -> Any:
    import psycopg

    with psycopg.connect(dsn, password=PASSWORD) as opened:
        for statement in statements:
            found = opened.execute(statement)  # type: ignore[call-overload]
        return found.fetchall() if found.description else None


def count(dsn: str) -> int:
    return int(execute(dsn, "SELECT count(*) FROM notes")[0][0])


def test_rows_come_through_a_cursor_of_the_server(server: str, tmp_path: Path) -> None:
    out = tmp_path / "notes.jsonl"
    query = (
        "SELECT note AS text, ward AS label, patient AS person, written AS time, more, share, "
        "(SELECT count(*) FROM pg_cursors) AS cursors FROM notes WHERE note LIKE 'pain %' "
        "AND note !~ '%s' ORDER BY patient, note"
    )
    assert sql_file(server, query, out).rows == 1000
    first = out.read_text().splitlines()[0]
    assert first == (
        '{"text": "pain 0", "label": "heart", "person": 0, "time": "2024-03-05T10:00:00+00:00", '
        '"more": {"a": [1]}, "share": 0.10, "cursors": 1}'
    )
    assert PASSWORD not in log_of(out).read_text()
    assert "owner" not in log_of(out).read_text()


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM notes RETURNING note",
        "WITH gone AS (DELETE FROM notes RETURNING note) SELECT * FROM gone",
        "SELECT note INTO copied FROM notes",
        "SELECT note FROM notes FOR UPDATE",
        "SELECT written()",
        "SELECT note FROM notes; DELETE FROM notes",
        "SELECT note FROM notes; COMMIT; DELETE FROM notes",
        "SELECT set_config('transaction_read_only', 'off', false), written()",
        "COMMIT",
    ],
)
def test_what_writes_is_refused_by_the_server_itself(
    server: str, tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the statement is taken away, so that the transaction alone stands against it."""
    monkeypatch.setattr(run, "check_reading", lambda text: text)
    before = count(server)
    with pytest.raises(DataError, match="--dsn") as refused:
        sql_file(server, query, tmp_path / "out.jsonl")
    assert PASSWORD not in str(refused.value)
    assert count(server) == before == 1000
    assert execute(server, "SELECT to_regclass('copied')")[0][0] is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["wrong-s3cret", None])
def test_a_password_that_is_refused_is_in_no_message(
    server: str, tmp_path: Path, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(connection.VARIABLE)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    if given is not None:
        monkeypatch.setenv(connection.VARIABLE, given)
    with pytest.raises(DataError, match="password") as refused:
        sql_file(server, "SELECT 1 AS text", tmp_path / "out.jsonl")
    assert "s3cret" not in str(refused.value)


def test_a_server_that_is_not_there_ends_in_one_message(tmp_path: Path) -> None:
    from tests.support.ports import free_port

    with pytest.raises(DataError, match=r"--dsn: .*connection"):
        sql_file(
            f"postgresql://me@127.0.0.1:{free_port()}/x", "SELECT 1 AS t", tmp_path / "o.jsonl"
        )
