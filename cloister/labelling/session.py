"""One annotator's session: it chooses the next record, saves answers and undoes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cloister.errors import UsageError
from cloister.labelling.annotator_answers import AnswerFile
from cloister.labelling.scheme import Answer, LabelScheme
from cloister.labelling.to_label import LabelItem


@dataclass(frozen=True)
class _Given:
    """An entry of the undo list: the record, and the answer that it had before."""

    place: int
    before: Answer | None


class LabelSession:
    """Answers the page's requests; a place is a record's position on the page, from 0.

    Args:
        items: The records, in the order in which the page shows them.
        scheme: The allowed answers.
        file: The file that stores the answers.
    """

    def __init__(self, items: Sequence[LabelItem], scheme: LabelScheme, file: AnswerFile) -> None:
        self.items = items
        self.scheme = scheme
        self._file = file
        places = {item.number: place for place, item in enumerate(items)}
        # Undo also reaches answers of earlier sessions, the last one first.
        self._given = [_Given(places[number], None) for number in file.answers]
        # Requests run in several threads; the lock lets one of them write the file at a time.
        self._lock = Lock()

    @property
    def answered(self) -> int:
        """Number of records that have an answer."""
        return len(self._file.answers)

    def start(self) -> int:
        """Returns the place at which to continue: after the record that was answered last."""
        return self._next_open(self._given[-1].place if self._given else -1)

    def at(self, place: int) -> dict[str, Any]:
        """Returns what the page shows at a place; the place after the last record is the end."""
        place = max(0, min(place, len(self.items)))
        shown: dict[str, Any] = {
            "at": place,
            "total": len(self.items),
            "answered": self.answered,
            "can_undo": bool(self._given),
        }
        if place < len(self.items):
            item = self.items[place]
            shown |= {
                "number": item.number,
                "text": item.text,
                "words": list(item.words),
                "answer": self._file.answers.get(item.number),
            }
        return shown

    def after(self, place: int) -> dict[str, Any]:
        """Returns what the page shows for the next record without an answer, or for the end."""
        return self.at(self._next_open(max(-1, min(place, len(self.items) - 1))))

    def answer(self, place: int, given: Any) -> dict[str, Any]:
        """Saves an answer and returns the next record without one.

        Raises:
            UsageError: The place does not exist.
            DataError: The scheme does not allow the answer.
            OSError: It could not be saved; nothing has changed.
        """
        if not 0 <= place < len(self.items):
            raise UsageError(f"no record {place + 1}; there are {len(self.items)}")
        item = self.items[place]
        answer = self.scheme.checked(given, item.words)
        with self._lock:
            before = self._file.answers.get(item.number)
            if before != answer:
                self._file.put(item.number, answer)
                self._given.append(_Given(place, before))
        return self.at(self._next_open(place))

    def undo(self) -> dict[str, Any]:
        """Undoes the last answer and returns its record.

        Raises:
            OSError: It could not be written; nothing has changed.
        """
        with self._lock:
            if not self._given:
                return self.at(self.start())
            last = self._given[-1]
            number = self.items[last.place].number
            if last.before is None:
                self._file.take_back(number)
            else:
                self._file.put(number, last.before)
            self._given.pop()
        return self.at(last.place)

    def _next_open(self, place: int) -> int:
        """Returns the next place without an answer, starting again at the first; else the end."""
        count = len(self.items)
        for step in range(1, count + 1):
            following = (place + step) % count
            if self.items[following].number not in self._file.answers:
                return following
        return count
