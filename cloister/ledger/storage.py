"""One ledger on disk: an SQLite file, with a lock file and the head of its chain beside it.

Durability, measured under simulated power cuts (tests/faults/test_power_cuts.py): a rollback
journal (`journal_mode=DELETE`) with `synchronous=EXTRA` loses no acknowledged entry; FULL loses
some, because the journal's removal is not synced. No WAL (SQLite before 3.51.3 can corrupt one that
two connections reset), no memory mapping, one writer at a time under a lock, never on a network
file system, whose locks and syncs are not reliable.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from cloister.canonical import canonical
from cloister.errors import BadFileError, LedgerError
from cloister.ledger.chain import Entry, Head, follow
from cloister.ledger.local_disk import refuse_network_file_system
from cloister.owner_only import FILE, private_folder, tighten

APPLICATION_ID = 0x434C4F49  # "CLOI"
VERSION = 1

SCHEMA = [
    "CREATE TABLE entries"
    " (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    "CREATE TABLE payloads"
    " (seq INTEGER PRIMARY KEY REFERENCES entries, bytes BLOB NOT NULL) STRICT",
]

_BUSY_MILLISECONDS = 5_000

_READ_WRITE, _READ_ONLY = apsw.SQLITE_OPEN_READWRITE, apsw.SQLITE_OPEN_READONLY


class LedgerFile:
    """A ledger's entries and the payloads of its releases.

    Args:
        path: The SQLite file.
        vfs: SQLite's file layer; None: the operating system's.
    """

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self.path = path
        self._vfs = vfs

    def create(self, first: Entry) -> None:
        """Makes the file with its first entry.

        Raises:
            LedgerError: A file exists already, the file system is a network's, or the file cannot
                be written.
        """
        if not self.path.parent.is_dir():  # the rights of an existing folder are left alone
            private_folder(self.path.parent)
        refuse_network_file_system(self.path)
        with self._locked(), self._guarded():
            if self._head_file.exists() or (self.path.exists() and not self._is_empty()):
                raise LedgerError(
                    f"{self.path}: a ledger exists already; a data set has one for its lifetime"
                )
            if self._vfs is None:  # SQLite would use the umask, also for its journals
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, FILE))
            connection = self._connect(_READ_WRITE | apsw.SQLITE_OPEN_CREATE)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(";".join(SCHEMA))
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={VERSION}")
                _insert(connection, first, 0)
                connection.execute("COMMIT")
            finally:
                connection.close()
            self._write_head(Head(0, first.hash))

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Reads, checks and appends under the lock.

        Raises:
            LedgerError: The file is missing, damaged, behind its head, or cannot be written; then
                the appended entries do not count.
        """
        refuse_network_file_system(self.path)
        with self._locked(), self._guarded():
            connection = self._connect(_READ_WRITE)
            try:
                connection.execute("BEGIN IMMEDIATE")
                transaction = Transaction(connection)
                self._check_head(transaction)
                if not self._head_file.exists():  # a crash came before the first head was written
                    self._write_head(transaction.head())
                yield transaction
                connection.execute("COMMIT" if transaction.appended else "ROLLBACK")
            finally:
                connection.close()  # rolls back anything uncommitted
            if transaction.appended:
                self._write_head(transaction.appended)

    def entries(self) -> list[Entry]:
        """Reads all entries, oldest first.

        Raises:
            LedgerError: The file is missing, damaged or behind its head.
        """
        with self.reading() as reader:
            return list(reader.entries(after=-1))

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Reads under the lock, as far as the caller needs.

        Raises:
            LedgerError: The file is missing, damaged or behind its head.
        """
        with self._guarded(reading=True):
            if self.path.is_dir():  # before a lock is left beside it
                raise LedgerError(f"{self.path}: a folder, not a ledger; name the file in it")
        with self._locked(reading=True), self._guarded(reading=True):
            connection = self._connect(self._reading_flags())
            try:
                connection.execute("BEGIN")
                reader = Transaction(connection)
                self._check_head(reader)
                yield reader
            finally:
                connection.close()

    def snapshot(self, to: Path) -> Head:
        """Copies the ledger with all payloads, between two entries, with its head beside it.

        Args:
            to: The copy's path; readable by its owner only. Charges wait until it is done.

        Returns:
            The copy's last entry.

        Raises:
            LedgerError: The ledger is missing, damaged or behind its head.
            BadFileError: The copy cannot be written, or `to` exists.
        """
        with self._locked(reading=True), self._guarded(reading=True):
            connection = self._connect(self._reading_flags())
            try:
                connection.execute("BEGIN")
                reader = Transaction(connection)
                self._check_head(reader)
                head = reader.head()
                _copy(connection, to)
            finally:
                connection.close()
        LedgerFile(to)._write_head(head)
        return head

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yields the number and the bytes of every release.

        Raises:
            LedgerError: The file is missing or damaged.
        """
        with self._locked(reading=True), self._guarded(reading=True):
            connection = self._connect(self._reading_flags())
            try:
                for seq, content in connection.execute("SELECT seq, bytes FROM payloads"):
                    yield int(seq), _blob(content)
            finally:
                connection.close()

    def tighten(self) -> None:
        """Removes other users' rights on its files, if this user owns them."""
        for ending in ("", ".head", ".lock", "-journal"):
            tighten(self.path.with_name(self.path.name + ending))

    @property
    def is_begun(self) -> bool:
        """Whether a ledger exists; a file that a crash left before its first entry does not
        count."""
        if self._head_file.exists():
            return True
        with self._locked(reading=True), self._guarded():
            return self.path.exists() and not self._is_empty()

    def _is_empty(self) -> bool:
        """Whether the file has no page yet; rolls back a journal that a crash left."""
        connection = apsw.Connection(str(self.path), flags=_READ_WRITE, vfs=self._vfs)
        try:
            return int(connection.execute("PRAGMA page_count").get) == 0
        finally:
            connection.close()

    @property
    def _head_file(self) -> Path:
        return self.path.with_name(self.path.name + ".head")

    def _reading_flags(self) -> int:
        # SQLite rolls back a hot journal on the next open, which needs write access.
        return _READ_WRITE if os.access(self.path, os.W_OK) else _READ_ONLY

    def _connect(self, flags: int) -> apsw.Connection:
        if not flags & apsw.SQLITE_OPEN_CREATE and not self.path.exists():
            raise LedgerError(
                f"{self.path}: no ledger here; what was spent is unknown, so nothing is released: "
                "restore the ledger from its backup (cloister site restore)"
            )
        connection = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs)
        # Writers wait for our lock; this is for readers that cannot take it: a backup, an auditor.
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        if not flags & apsw.SQLITE_OPEN_READONLY:
            mode = connection.execute("PRAGMA journal_mode=DELETE").get
            connection.execute("PRAGMA synchronous=EXTRA")
            if mode != "delete":
                raise LedgerError(f"{self.path}: journal mode {mode!r} instead of 'delete'")
        connection.execute("PRAGMA mmap_size=0")
        if not flags & apsw.SQLITE_OPEN_CREATE:
            found = (
                connection.execute("PRAGMA application_id").get,
                connection.execute("PRAGMA user_version").get,
            )
            if found != (APPLICATION_ID, VERSION):
                connection.close()
                raise LedgerError(f"{self.path}: not a ledger of this version of cloister")
            schema = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema")]
            if schema != SCHEMA:  # a trigger could drop what is inserted
                connection.close()
                raise LedgerError(f"{self.path}: damaged (its tables are not a ledger's)")
        return connection

    @contextmanager
    def _locked(self, *, reading: bool = False) -> Iterator[None]:
        lock = self.path.with_name(self.path.name + ".lock")
        if reading and not self.path.exists():  # nothing to lock, and no lock file is left behind
            yield
            return
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if not reading:
                raise _unwritable(self.path, error) from error
            yield  # reading goes on without a lock
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:  # a file system without locks
                raise _unwritable(self.path, error) from error
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _guarded(self, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeError) as error:
            raise LedgerError(
                f"{self.path}: damaged ({error}); what was spent is unknown, so nothing is "
                "released: restore it from its backup (cloister site restore)"
            ) from error
        except (apsw.Error, OSError) as error:
            raise (_unreadable if reading else _unwritable)(self.path, error) from error

    def _check_head(self, transaction: Transaction) -> None:
        try:
            stored = json.loads(self._head_file.read_bytes())
            head = Head(int(stored["seq"]), str(stored["hash"]))
        except FileNotFoundError:
            head = None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise LedgerError(f"{self._head_file}: damaged; restore it from its backup") from error
        last = transaction.head()
        if head is None and last.seq > 0:
            raise LedgerError(f"{self._head_file}: missing; restore it from its backup")
        if head is not None and (
            not 0 <= head.seq <= last.seq or transaction.entry(head.seq).hash != head.hash
        ):
            raise LedgerError(
                f"{self.path}: entry {head.seq} existed and is missing or different now: the file "
                "was truncated, rolled back or replaced; restore the latest one"
            )

    def _write_head(self, head: Head) -> None:
        temporary = self._head_file.with_name(self._head_file.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(canonical({"seq": head.seq, "hash": head.hash}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._head_file)


class Transaction:
    """An open transaction on a ledger's file, which may append to it."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.appended: Head | None = None

    def head(self) -> Head:
        """The head of the chain: number and hash of its last entry.

        Raises:
            LedgerError: There is no entry.
        """
        row = self._connection.execute("SELECT max(seq) FROM entries").get
        if row is None:
            raise LedgerError("the ledger has no entry: its first one is missing")
        return Head(int(row), self.entry(int(row)).hash)

    def entry(self, seq: int) -> Entry:
        """Reads one entry by its number.

        Raises:
            LedgerError: The entry is missing.
        """
        found = self.find(seq)
        if found is None:
            raise LedgerError(f"entry {seq} is missing")
        return found

    def find(self, seq: int) -> Entry | None:
        """Reads one entry by its number; None: there is none."""
        if not 0 <= seq < 2**63:  # SQLite's whole numbers
            return None
        row = self._connection.execute(
            "SELECT body, signature FROM entries WHERE seq = ?", (seq,)
        ).fetchone()
        return None if row is None else Entry(_blob(row[0]), _blob(row[1]))

    def entries(self, after: int) -> Iterator[Entry]:
        """Entries with a number above `after`, in order."""
        for body, signature in self._connection.execute(
            "SELECT body, signature FROM entries WHERE seq > ? ORDER BY seq", (after,)
        ):
            yield Entry(_blob(body), _blob(signature))

    def payload(self, seq: int) -> bytes:
        """The bytes of a release.

        Raises:
            LedgerError: The bytes are missing.
        """
        row = self._connection.execute("SELECT bytes FROM payloads WHERE seq = ?", (seq,)).get
        if row is None:
            raise LedgerError(f"the bytes of release {seq} are missing")
        return _blob(row)

    def append(self, entry: Entry, payload: bytes | None = None) -> None:
        """Adds the next entry; durable once the transaction ends."""
        head = self.head()
        self.appended = follow([entry], head, None)
        _insert(self._connection, entry, head.seq + 1)
        if payload is not None:
            self._connection.execute("INSERT INTO payloads VALUES (?, ?)", (head.seq + 1, payload))


def _copy(source: apsw.Connection, to: Path) -> None:
    """Copies a database, page by page, to a new file.

    Raises:
        BadFileError: It cannot be written.
    """
    try:
        os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))
        copy = apsw.Connection(str(to), flags=_READ_WRITE)
        try:
            with copy.backup("main", source, "main") as pages:
                pages.step()
        finally:
            copy.close()
    except (apsw.Error, OSError) as error:
        raise BadFileError(f"{to}: a copy of the ledger cannot be written ({error})") from error


def _blob(value: object) -> bytes:
    if not isinstance(value, bytes):  # SQLite checks types only when it writes
        raise LedgerError(f"damaged: {type(value).__name__} instead of bytes; restore the ledger")
    return value


def _insert(connection: apsw.Connection, entry: Entry, seq: int) -> None:
    connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (seq, entry.body, entry.signature))


def _unreadable(path: Path, error: Exception) -> LedgerError:
    return LedgerError(f"{path}: cannot be read ({error}); name a ledger's file that you may read")


def _unwritable(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"{path}: cannot be written ({error}); nothing is drawn or sent without its ledger entry: "
        "free space or correct the permissions, then start again"
    )
