"""One annotator's way through the records: which comes next, what was answered, what is undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cloister.errors import UsageError
from cloister.labelling.answers import AnswerFile
from cloister.labelling.items import LabelItem
from cloister.labelling.scheme import Answer, LabelScheme


@dataclass(frozen=True)
class _Given:
    """One answer that can be taken back: at which record, and what was there before."""

    place: int
    before: Answer | None


class LabelSession:
    """What the page shows and does; places count the shown records from 0.

    Args:
        items: In the order in which they are shown.
        scheme: What may be answered.
        file: Where answers are saved.
    """

    def __init__(self, items: Sequence[LabelItem], scheme: LabelScheme, file: AnswerFile) -> None:
        self.items = items
        self.scheme = scheme
        self._file = file
        places = {item.number: place for place, item in enumerate(items)}
        # Answers of earlier days can be taken back too, the last one first.
        self._given = [_Given(places[number], None) for number in file.answers]
        # Requests are answered in threads; a file is written by one at a time.
        self._lock = Lock()

    @property
    def answered(self) -> int:
        """How many records have an answer."""
        return len(self._file.answers)

    def start(self) -> int:
        """Where to go on: after the record that was answered last."""
        return self._next_open(self._given[-1].place if self._given else -1)

    def at(self, place: int) -> dict[str, Any]:
        """What the page shows at a place; one beyond the last is the end."""
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
        """What the page shows next of the records without an answer; none left: the end."""
        return self.at(self._next_open(max(-1, min(place, len(self.items) - 1))))

    def answer(self, place: int, given: Any) -> dict[str, Any]:
        """Saves an answer, and shows the next record without one.

        Raises:
            UsageError: There is no such place.
            DataError: It is no answer of this scheme.
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
        """Takes the last answer back, and shows its record.

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
        """The next place without an answer, past the end again from the first; else the end."""
        count = len(self.items)
        for step in range(1, count + 1):
            following = (place + step) % count
            if self.items[following].number not in self._file.answers:
                return following
        return count
