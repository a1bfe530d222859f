"""One annotator's file of answers, durable before the page reports an answer as saved.

A new answer is appended and synced. When an answer is changed or removed, a new file replaces the
old one atomically. So the file is valid training data at any moment, and a kill loses no answer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from cloister.data.formats import FileForm
from cloister.data.json_rows import json_rows
from cloister.data.outputs import json_text
from cloister.data.values import MOST_ROW_BYTES, Number, Row, Value
from cloister.errors import DataError, UsageError
from cloister.files import open_file, sync_folder, write_whole
from cloister.labelling.scheme import Answer, LabelScheme, answer_of, as_value
from cloister.labelling.to_label import ANNOTATOR, ANSWERS, ROW, LabelItem, number_of
from cloister.owner_only import FILE


class AnswerFile:
    """The answers of one annotator on disk; use it as a context manager.

    Args:
        path: A `.jsonl` file, which may exist already.
        scheme: The allowed answers.
        column: The column of answers.
        annotator: The annotator's name.
        items: The records by number.

    Raises:
        UsageError: Another page has the file open.
        DataError: The file holds rows that a page with this scheme did not write.
        OSError: It cannot be read or written.

    Attributes:
        answers: The answers so far by record number, in the order in which they were given.
    """

    def __init__(
        self,
        path: Path,
        scheme: LabelScheme,
        column: str,
        annotator: str,
        items: Mapping[int, LabelItem],
    ) -> None:
        self.path = path
        self._scheme, self._column, self._annotator = scheme, column, annotator
        self._items = items
        self._lock = _locked(path)
        try:
            _drop_torn_line(path)
            self.answers = self._read()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def put(self, number: int, answer: Answer) -> None:
        """Saves an answer; it is durable on return.

        Raises:
            OSError: It could not be written; earlier answers are still saved.
        """
        changed = {k: v for k, v in self.answers.items() if k != number} | {number: answer}
        if number in self.answers:
            self._write(changed)
        else:
            self._append(self._line(number, answer))
        self.answers = changed

    def take_back(self, number: int) -> None:
        """Removes an answer; the file no longer has it on return.

        Raises:
            OSError: It could not be written.
        """
        kept = {k: v for k, v in self.answers.items() if k != number}
        self._write(kept)
        self.answers = kept

    def _line(self, number: int, answer: Answer) -> bytes:
        item = self._items[number]
        row: dict[str, Value] = {k: v for k, v in item.row.items() if k != ANSWERS}
        if item.words:
            row["tokens"] = list(item.words)
        row[self._column] = as_value(answer)
        row[ROW] = Number(str(number))
        row[ANNOTATOR] = self._annotator
        line = json_text(row).encode()
        if len(line) > MOST_ROW_BYTES:
            raise DataError(f"record {number}: its row has more than {MOST_ROW_BYTES} bytes")
        return line + b"\n"

    def _append(self, line: bytes) -> None:
        before = self.path.stat().st_size
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # on a full disk half a row may be written, which would not be valid JSON
            os.truncate(self.path, before)
            raise

    def _write(self, answers: Mapping[int, Answer]) -> None:
        write_whole(self.path, b"".join(self._line(k, v) for k, v in answers.items()), FILE)

    def _read(self) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        if self.path.stat().st_size == 0:
            return found
        for line, row in json_rows(self.path, FileForm(kind="json")):
            number, answer = self._known(row, f"{self.path}, row {line}")
            if number in found:
                raise DataError(f"{self.path}, row {line}: duplicate record {number}; remove one")
            found[number] = answer
        return found

    def _known(self, row: Row, where: str) -> tuple[int, Answer]:
        number = number_of(row, -1)
        answer = answer_of(row.get(self._column), self._scheme.kind)
        if number not in self._items or answer is None:
            raise DataError(
                f"{where}: this page did not write the row (unknown record, or no valid "
                f"{self._column}); give another --out"
            )
        listed = list(answer) if isinstance(answer, tuple) else answer
        return number, self._scheme.checked(listed, self._items[number].words)


def _locked(path: Path) -> int:
    """Takes the lock of a file, in a file beside it, because the answers' file is replaced."""
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"--out: another page has {path} open; close that page, or give another --out"
        ) from error
    return descriptor


def _drop_torn_line(path: Path) -> None:
    """Removes an incomplete last row, which the page had not reported as saved."""
    with open_file(path) as file:
        content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
        sync_folder(path.parent)
