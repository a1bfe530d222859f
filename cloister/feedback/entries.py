"""The values of the feedback store: what a person said, and the operator's decision on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cloister.data.records import RecordKind
from cloister.feedback.corrections import Answer, Given


class ReviewState(StrEnum):
    """The operator's decision on a piece of feedback."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class Content:
    """A person's statement about one answer of the model.

    Attributes:
        kind: Kind of records that the task reads.
        version: Digest of the model version that answered.
        asked: The model's input.
        answer: The model's answer.
        is_right: Whether the person called the answer right.
        correction: The right answer, according to the person.
        unit: `cloister_unit` of the record that the input came from; None: not given.
        person: The person's id; None: not given.
        drew_on: Private state without noise that the answer used: `documents` or `personal
            adapter`; empty: none. Feedback on such an answer is never trained on, because the
            answer may repeat other records in clear.
    """

    kind: RecordKind
    version: str
    asked: Given
    answer: Answer
    is_right: bool
    correction: Answer
    unit: str | None
    person: str | None
    drew_on: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the content as JSON values, which the store writes."""
        return asdict(self)


@dataclass(frozen=True)
class Feedback:
    """A row of the store: a statement, its sender and the operator's decision.

    Attributes:
        id: The row's id, by which the operator accepts, rejects or erases it.
        at: Time of arrival, ISO 8601 in UTC.
        caller: The sender: a name from the token file, or `anyone`.
        status: The operator's decision.
        content: The person's statement.
    """

    id: str
    at: str
    caller: str
    status: ReviewState
    content: Content

    def to_json(self) -> dict[str, Any]:
        """Returns the row as one JSON object, for `cloister site feedback list --json`."""
        facts = {"id": self.id, "at": self.at, "caller": self.caller, "status": self.status.value}
        return {**facts, **self.content.to_json()}
