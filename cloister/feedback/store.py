"""The site's feedback store: one SQLite file that only its owner may read.

With a key, only the content of a row is encrypted. Its id, time, caller and status stay readable,
so that SQLite can count rows and list them in order.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.bounds import shortened
from cloister.errors import BadFileError, CloisterError, DataError, UsageError
from cloister.feedback.entries import Content, Feedback, ReviewState
from cloister.feedback.sealing import Seal, key_in
from cloister.files import bad_file, why_no_file
from cloister.json_text import read_json
from cloister.owner_only import FILE, rights_of_others

# Largest content in bytes: a conversation of 16,000 words. With the limit on rows, one caller can
# fill at most 640 MB.
MOST_CONTENT = 64 * 2**10
# Most rows of one caller: thirty a day for a year.
MOST_ROWS = 10_000
# How long a writer waits for another one, in seconds.
_WAIT = 10.0
_FORM = "cloister-feedback/1"
_TABLES = (
    "CREATE TABLE about(name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE feedback(place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, at TEXT NOT NULL, "
    "caller TEXT NOT NULL, status TEXT NOT NULL, content BLOB NOT NULL)",
    "CREATE INDEX of_caller ON feedback(caller)",
)


class StoreFullError(CloisterError):
    """A caller already has the largest number of rows that the store accepts from one caller."""


class FeedbackStore:
    """A feedback store in a file; several processes may use it at the same time.

    Args:
        path: The store's file.
        key: A key file; None: the store is not encrypted.
        make: Whether to create a missing store and its key file.

    Attributes:
        secret: 32 bytes that never change, under which the service authenticates its receipts.

    Raises:
        UsageError: The store is encrypted and no key is given, or the other way round.
        BadFileError: The file is missing, damaged or not a store, or the key does not fit.
    """

    def __init__(self, path: Path, key: Path | None = None, *, make: bool = False) -> None:
        self._path, self._lock = path, threading.Lock()
        is_new = make and not os.path.lexists(path)
        self._seal = Seal(None if key is None else key_in(key, make=is_new))
        try:
            if is_new:
                # Check before SQLite opens the file: its journal gets the same rights.
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))
            elif (why := why_no_file(path)) is not None:
                todo = (
                    "give another file"
                    if os.path.lexists(path)
                    else f"cloister serve RUN --feedback {path} makes a store"
                )
                raise BadFileError(f"{path}: {why}; {todo}")
            if rights := rights_of_others(path):
                raise BadFileError(
                    f"{path}: other users may {rights} this file; run chmod 600 {path}"
                )
            self._base = sqlite3.connect(
                path, timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
        except (OSError, ValueError) as error:
            raise bad_file(error, "opened") from error
        try:
            with self._reading():
                self._base.execute("PRAGMA secure_delete = ON")
                self._base.execute("PRAGMA trusted_schema = OFF")
                if is_new or not self._rows("SELECT name FROM sqlite_master"):
                    self._begin(is_sealed=key is not None)
                self.secret = self._opened(is_sealed=key is not None)
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        """Closes the store's file; the store cannot be used afterwards."""
        with self._lock:
            self._base.close()

    def add(self, content: Content, caller: str, now: datetime) -> str:
        """Stores a piece of feedback; it is on disk when this returns.

        Args:
            content: The person's statement.
            caller: The sender's name.
            now: Time of arrival.

        Returns:
            The new row's id.

        Raises:
            DataError: The content is larger than `MOST_CONTENT`.
            StoreFullError: The caller already has `MOST_ROWS` rows.
            BadFileError: The file cannot be written.
        """
        text = json.dumps(content.to_json(), ensure_ascii=False).encode()
        if len(text) > MOST_CONTENT:
            raise DataError(
                f"the feedback has {len(text)} bytes; at most {MOST_CONTENT} are accepted: shorten "
                "it"
            )
        identifier, at = secrets.token_hex(6), now.astimezone(UTC).isoformat(timespec="seconds")
        with self._writing():
            ((rows,),) = self._rows("SELECT COUNT(*) FROM feedback WHERE caller = ?", caller)
            if rows >= MOST_ROWS:
                raise StoreFullError(
                    f"{caller} already has {rows} pieces of feedback here, the most that one "
                    "caller may have; the operator can erase those that were exported"
                )
            self._base.execute(
                "INSERT INTO feedback(id, at, caller, status, content) VALUES (?, ?, ?, ?, ?)",
                (
                    identifier,
                    at,
                    caller,
                    ReviewState.WAITING.value,
                    self._seal.close(text, identifier),
                ),
            )
        return identifier

    def all(self, status: ReviewState | None = None) -> list[Feedback]:
        """Returns the stored feedback in order of arrival.

        Args:
            status: Only rows with this decision; None: all rows.

        Raises:
            BadFileError: The file is damaged, or a row was changed.
        """
        with self._reading():
            rows = self._rows("SELECT id, at, caller, status, content FROM feedback ORDER BY place")
        return [self._read(row) for row in rows if status is None or row[3] == status.value]

    def decide(self, identifier: str, status: ReviewState) -> None:
        """Accepts or rejects a piece of feedback; a later decision replaces an earlier one.

        Raises:
            UsageError: No row has this id; or it shall be accepted although the answer used
                private state without noise.
            BadFileError: The file is damaged or cannot be written.
        """
        with self._writing():
            rows = self._rows(
                "SELECT id, at, caller, status, content FROM feedback WHERE id = ?", identifier
            )
            if not rows:
                raise self._unknown(identifier)
            drew_on = self._read(rows[0]).content.drew_on
            if status is ReviewState.ACCEPTED and drew_on:
                raise UsageError(
                    f"{identifier}: its answer used private state without noise ({drew_on}), so it "
                    "is never trained on; reject or erase it"
                )
            self._base.execute(
                "UPDATE feedback SET status = ? WHERE id = ?", (status.value, identifier)
            )

    def erase(self, identifier: str) -> None:
        """Deletes a piece of feedback and overwrites its bytes in the file.

        Raises:
            UsageError: No row has this id.
            BadFileError: The file cannot be written.
        """
        with self._writing():
            done = self._base.execute("DELETE FROM feedback WHERE id = ?", (identifier,))
            if not done.rowcount:
                raise self._unknown(identifier)

    def _unknown(self, identifier: str) -> UsageError:
        return UsageError(
            f"{self._path}: no feedback has the id {shortened(identifier)}; cloister site feedback "
            f"list {self._path} shows the ids"
        )

    def _begin(self, *, is_sealed: bool) -> None:
        """Creates all tables in one transaction, so that a crash leaves none."""
        self._base.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            self._base.execute(table)
        secret = self._seal.close(secrets.token_bytes(32), "secret")
        about = {"form": _FORM, "sealed": "yes" if is_sealed else "no", "secret": secret}
        self._base.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        self._base.execute("COMMIT")

    def _opened(self, *, is_sealed: bool) -> bytes:
        about = dict(self._rows("SELECT name, value FROM about"))
        if about.get("form") != _FORM:
            raise BadFileError(f"{self._path}: not a feedback store; give another file")
        if is_sealed != (about["sealed"] == "yes"):
            needed = (
                "is not encrypted; give no key"
                if is_sealed
                else "is encrypted; give its key file: cloister site feedback … --key FILE, "
                "cloister serve … --feedback-key FILE"
            )
            raise UsageError(f"{self._path}: the store {needed}")
        try:
            return self._seal.open(bytes(about["secret"]), "secret")
        except ValueError as error:
            raise BadFileError(
                f"{self._path}: the key does not decrypt it ({error}); give this store's key file"
            ) from error

    def _read(self, row: tuple[str, str, str, str, bytes]) -> Feedback:
        identifier, at, caller, status, sealed = row
        try:
            if not isinstance(sealed, bytes):
                raise ValueError("changed since")
            text = self._seal.open(bytes(sealed), identifier)
            fields = read_json(text, most_bytes=MOST_CONTENT)
            return Feedback(identifier, at, caller, ReviewState(status), Content(**fields))
        except (TypeError, ValueError) as error:
            raise BadFileError(
                f"{self._path}: {shortened(identifier)} cannot be read ({error}); restore the file"
            ) from error

    def _rows(self, question: str, *values: str) -> list[Any]:
        return self._base.execute(question, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise BadFileError(
                    f"{self._path}: cannot be used as a feedback store ({error}); restore it, "
                    "or give another file"
                ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise
