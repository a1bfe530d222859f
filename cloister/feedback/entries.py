"""One piece of feedback, as the site keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cloister.data.records import RecordKind
from cloister.feedback.corrections import Answer, Given


class ReviewState(StrEnum):
    """What the operator decided of a piece of feedback."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a person said of an answer.

    Attributes:
        kind: What the task reads.
        version: Digest of the version that answered.
        asked: What it was asked.
        answer: What it said.
        is_right: Whether the person says that this was right.
        correction: What would have been right.
        unit: The record's `cloister_unit` whose text it is; None: not given.
        person: The person's id; None: not given.
        drew_on: Private state without noise that the answer used: `documents` or `personal
            adapter`; empty: none. With it, it is never trained on.
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
        """The content as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Feedback:
    """A content in the store.

    Attributes:
        id: Names it to the operator.
        at: When it came, as ISO 8601 in UTC.
        caller: Who sent it: a name of the token file, or `anyone`.
        status: What was decided.
        content: What was said.
    """

    id: str
    at: str
    caller: str
    status: ReviewState
    content: Content

    def to_json(self) -> dict[str, Any]:
        """The feedback as one JSON object."""
        facts = {"id": self.id, "at": self.at, "caller": self.caller, "status": self.status.value}
        return {**facts, **self.content.to_json()}
