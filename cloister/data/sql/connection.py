"""Opens a database so that a query cannot write, and keeps its password out of every message.

SQLite: the file is opened with `mode=ro` and `PRAGMA query_only`, and an authorizer allows only
reading rows and calling functions, so that no ATTACH and no PRAGMA is run.
PostgreSQL: the query runs in a transaction that is `READ ONLY` and `REPEATABLE READ`, as the server
is asked to confirm before it, by the protocol that takes one statement at a time, behind a
server-side cursor. Sessions begin with `default_transaction_read_only` on, so that a transaction
after this one would be read-only too.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloister.errors import BadFileError, DataError, UsageError
from cloister.files import why_no_file

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

VARIABLE = "CLOISTER_SQL_PASSWORD"
_SECRETS = ("password", "passfile", "sslpassword")
# Seconds to wait for a server's answer, as in the examples of libpq's manual.
CONNECT_TIMEOUT = 10
# Characters of a server's message that are shown.
SHOWN = 300
# Longest password in bytes; a longer first line means that the file is not a password file.
MOST_PASSWORD = 4096
# SQLite's permitted actions: begin a SELECT, read a column, call a function, recurse in a WITH.
_READS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)


def database(dsn: str) -> URL:
    """Returns a database's address, which must not have a password.

    Args:
        dsn: `sqlite:///FILE` or `postgresql://USER@HOST:PORT/DATABASE`.

    Raises:
        UsageError: It is not valid, has a password, or is of another kind of database; or the extra
            `sql` is not installed.
    """
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise UsageError(
            "--dsn: SQLAlchemy is not installed; pip install 'cloister[sql]'"
        ) from error
    form = "sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        # SQLAlchemy's message quotes the address, which may have a password.
        raise UsageError(f"--dsn: not a valid address; {form} is needed") from None
    if url.password is not None or any(name.lower() in _SECRETS for name in url.query):
        raise UsageError(
            "--dsn: has a password, which other users of this machine can see in the list of "
            f"processes; leave it out and give it in {VARIABLE} or with --password-file"
        )
    if url.get_backend_name() == "postgres":  # libpq's other name for it
        url = url.set(drivername="postgresql")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(
            f"--dsn: {url.get_backend_name()[:40]!r} given; {form} is needed, because only these "
            "two can be restricted to reading. Export a file from another database"
        )
    driver = "sqlite+pysqlite" if url.get_backend_name() == "sqlite" else "postgresql+psycopg"
    return url.set(drivername=driver)


def password(file: Path | None) -> str | None:
    """Returns the password from a file, else from the environment; None: there is none.

    Args:
        file: Its first line is the password.

    Raises:
        BadFileError: The file cannot be read, or its first line is not a password.
    """
    if file is None:
        return os.environ.get(VARIABLE) or None
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_PASSWORD + 1)
        found = content.decode().splitlines()
    except (OSError, ValueError) as error:
        raise BadFileError(f"--password-file {file}: cannot be read; correct the path") from error
    if len(content) > MOST_PASSWORD or not found or not found[0]:
        raise BadFileError(
            f"--password-file {file}: its first line must be the password, of less than "
            f"{MOST_PASSWORD} bytes"
        )
    return found[0]


def described(url: URL) -> dict[str, Any]:
    """Returns a database's description for a log, without user, password and options."""
    return {
        "database": url.get_backend_name(),
        "name": url.database,
        **({"host": url.host, "port": url.port} if url.host is not None else {}),
    }


@contextmanager
def reading(url: URL, secret: str | None) -> Iterator[Connection]:
    """Opens a connection inside a transaction that cannot write.

    Args:
        url: The database's address, from `database`.
        secret: Its password.

    Raises:
        UsageError: The driver is not installed, or the path is not a database file.
        DataError: The connection fails, the server does not confirm that it only reads, or it
            refuses the query; also raised while rows are read. The message has no password.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(
                "sqlite+pysqlite://", creator=lambda: _sqlite(url), poolclass=NullPool
            )
        else:
            engine = create_engine(
                url.set(password=secret),
                poolclass=NullPool,
                hide_parameters=True,
                connect_args={
                    "connect_timeout": CONNECT_TIMEOUT,
                    "options": "-c default_transaction_read_only=on",
                    "application_name": "cloister data sql",
                },
            )
    except (ImportError, SQLAlchemyError) as error:
        raise UsageError(
            "--dsn: the driver psycopg is not installed; pip install 'cloister[sql]'"
        ) from error
    try:
        with engine.connect() as connection:
            _hold(connection)
            yield connection
    except (SQLAlchemyError, UnicodeError) as error:  # drivers do not wrap errors of encoding
        raise DataError(f"--dsn: {_said(error, secret)}") from None
    finally:
        engine.dispose()


def _sqlite(url: URL) -> sqlite3.Connection:
    path = Path(url.database or "")
    if not url.database or (why := why_no_file(path)) is not None:
        reason = why if url.database else "no file is named"
        raise UsageError(f"--dsn: {url.database or 'sqlite://'}: {reason}; name a database's file")
    # Without `uri` a name that begins with file: could set its own options.
    place = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(place, uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _hold(connection: Connection) -> None:
    """Restricts a connection to reading.

    Raises:
        DataError: A server does not confirm the restriction.
    """
    if connection.dialect.name == "sqlite":
        opened: Any = connection.connection.driver_connection
        # Only now: SQLAlchemy runs PRAGMAs on a new connection.
        opened.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
        )
        return
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    held = connection.exec_driver_sql("SHOW transaction_read_only").scalar()
    if held != "on":
        raise DataError(
            "--dsn: the server does not confirm that it only reads; a proxy may be in between: "
            "connect to the database directly"
        )


def _said(error: Exception, secret: str | None) -> str:
    """Returns the first line of a database's own message, without the password."""
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    line = lines[0] if lines else type(origin).__name__
    if secret:
        line = line.replace(secret, "***")
    shown = "".join(c if c.isprintable() else " " for c in line[:SHOWN])
    return f"{shown}; correct the query, or the user's rights to read"
