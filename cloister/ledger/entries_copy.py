"""Copies a ledger's entries without the bytes of its releases, to be read elsewhere.

Everything that verifies a ledger or states an ε reads its entries. The bytes of releases are kept
to send one of them again, which only the ledger's own machine may do, and they grow by an update
each round.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from cloister.canonical import canonical
from cloister.ledger.chain import Head
from cloister.ledger.storage import APPLICATION_ID, SCHEMA, VERSION, LedgerFile


class EntriesCopy:
    """A copy in memory that follows a ledger; each time only new entries are read.

    Args:
        path: The ledger.
    """

    def __init__(self, path: Path) -> None:
        self._file = LedgerFile(path)
        self._copy = apsw.Connection(":memory:")
        self._copy.execute(";".join(SCHEMA))
        self._copy.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self._copy.execute(f"PRAGMA user_version={VERSION}")
        self.head: Head | None = None

    def follow(self) -> Head:
        """Reads the entries that are new since the last time; returns the last entry's head.

        Raises:
            LedgerError: The ledger is missing, damaged or behind its head.
        """
        with self._file.reading() as reader:
            after = -1 if self.head is None else self.head.seq
            rows = [
                (seq, entry.body, entry.signature)
                for seq, entry in enumerate(reader.entries(after), after + 1)
            ]
            self.head = reader.head()
        if rows:
            with self._copy:
                self._copy.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        return self.head

    def content(self) -> bytes:
        """Returns the copy as a ledger's file, with no release's bytes in it."""
        return bytes(self._copy.serialize("main"))

    def head_content(self) -> bytes:
        """Returns the file of the head, which stands beside a ledger."""
        assert self.head is not None  # after `follow`
        return canonical({"seq": self.head.seq, "hash": self.head.hash})
