"""Writes the rows of a query as a file of records, a few rows at a time."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.json_buffer import MOST_DEPTH
from cloister.data.sql.connection import database, described, password, reading
from cloister.data.sql.statement import check_reading
from cloister.data.step_writing import DataStep, new_logged_file, write_first_step
from cloister.data.values import MOST_ROW_BYTES, Number, Row, Value, shown
from cloister.errors import DataError, UsageError

# Rows that are fetched, and so held in memory, together.
BATCH = 100
TOLD_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class SqlReport:
    """Counts of what was written.

    Attributes:
        rows: Number of rows; a true count of private records.
        columns: The query's columns, in order.
    """

    rows: int
    columns: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {"rows": self.rows, "columns": list(self.columns)}


def sql_file(
    dsn: str,
    query: str,
    out: Path,
    *,
    password_file: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> SqlReport:
    """Writes the rows of a query; the columns have the names that the query gives them.

    Args:
        dsn: `sqlite:///FILE` or `postgresql://USER@HOST:PORT/DATABASE`, without a password.
        query: One statement that reads.
        out: A new file: `.jsonl`, `.csv` or `.parquet`; its log is written beside it.
        password_file: Its first line is the password; absent: the environment's
            `CLOISTER_SQL_PASSWORD`, or the one that libpq finds.
        progress: Is called now and then with the number of rows so far.

    Raises:
        UsageError: `out` exists, the query may write or has a duplicate column, the address has a
            password or is of another kind of database, or the extra `sql` is not installed.
        BadFileError: The password's file cannot be read.
        DataError: The database cannot be reached or refuses the query, gives no row, or a row
            cannot be written; nothing is written then.

    Guarantees:
        Nothing is written to the database. The password is in no message and in no log.
    """
    statement = check_reading(query)
    url = database(dsn)
    secret = password(password_file)
    with new_logged_file(out) as (writer, content):
        rows, names = 0, list[str]()
        with reading(url, secret) as connection:
            result = connection.execution_options(
                stream_results=True, max_row_buffer=BATCH
            ).exec_driver_sql(_as_driver_reads(statement, url.get_backend_name()))
            names = _names(list(result.keys()))
            for found in result:
                rows += 1
                where = f"row {rows} of the query"
                writer.add(_row(names, found, where), where)
                if progress is not None and rows % TOLD_EVERY == 0:
                    progress(rows)
        if not rows:
            raise DataError("--query: returns no row; correct its conditions")
        writer.end()
        report = SqlReport(rows=rows, columns=names)
        step = DataStep("sql", {"query": statement}, report.to_json())
        write_first_step(described(url), out, content, step)
    return report


def _as_driver_reads(statement: str, backend: str) -> str:
    """Escapes a statement so that the driver finds no placeholder of a parameter in it.

    psycopg looks for placeholders if it gets parameters, even an empty list; and only then does it
    use the protocol that allows one statement at a time.
    """
    return statement.replace("%", "%%") if backend == "postgresql" else statement


def _names(names: list[str]) -> list[str]:
    """Returns the names of a query's columns.

    Raises:
        UsageError: A name is duplicate or empty.
    """
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--query: duplicate column {shown(repeated[0])!r}; name each with AS")
    return names


def _row(names: Sequence[str], found: Sequence[Any], where: str) -> Row:
    row = {name: _value(value, name, where, 0) for name, value in zip(names, found, strict=True)}
    if sum(len(value) for value in row.values() if isinstance(value, str)) > MOST_ROW_BYTES:
        raise DataError(
            f"{where}: longer than {MOST_ROW_BYTES >> 20} MiB, the most that a row may hold; "
            "shorten it in the query"
        )
    return row


def _value(value: Any, name: str, where: str, depth: int) -> Value:
    """Converts a database's value for a file: numbers digit for digit, dates in ISO 8601."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return Number(str(value))
        case float() if math.isfinite(value):
            return Number(json.dumps(value))  # the shortest decimal that reads back as this number
        case decimal.Decimal() if value.is_finite():
            return Number(format(value, "f"))
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case list() if depth < MOST_DEPTH:
            return [_value(one, name, where, depth + 1) for one in value]
        case dict() if depth < MOST_DEPTH:
            return {str(k): _value(v, name, where, depth + 1) for k, v in value.items()}
    raise DataError(
        f"{where}: {shown(name)} is a {type(value).__name__}, which a file of records cannot hold; "
        "make it text in the query (CAST … AS TEXT)"
    )
