"""Receives callers' feedback, checks that this service gave the answer, and stores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloister.bounds import MOST_NAME, Text
from cloister.data.records import ChatRecord, RecordKind
from cloister.feedback.corrections import Answers, Given
from cloister.feedback.entries import Content
from cloister.feedback.receipts import DOCUMENTS, PERSONAL, AnswerOrigin, origin_of, receipt
from cloister.feedback.store import FeedbackStore
from cloister.service.bodies import BodyError
from cloister.service.versions import Version
from cloister.serving.inputs import Input, as_chat, as_items, as_pair, as_plain_text, as_sentence
from cloister.serving.predictions import Prediction
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.scoring import Scoring

FIELDS = {
    "receipt",
    "input",
    "answer",
    "is_right",
    "correction",
    "unit",
    "person",
    "consent",
}
_ID = Text(MOST_NAME, least=1)
NO_CONSENT = (
    "consent: true is needed, which states that the person whom the text is about agrees that "
    "question, answer and correction are stored at this institution and may train its next "
    "model; nothing was stored"
)


@dataclass(frozen=True)
class FeedbackDesk:
    """Makes receipts for answers, and stores feedback on them.

    Attributes:
        store: The site's feedback store.
    """

    store: FeedbackStore

    def receipts(
        self, version: Version, inputs: Sequence[Input], predictions: Sequence[Prediction]
    ) -> list[str]:
        """Makes the receipts of one request's predictions, in their order."""
        answers = answers_of(version)
        origin = AnswerOrigin(version.digest, PERSONAL if version.is_personal else "")
        return [
            receipt(
                self.store.secret,
                origin,
                kept(answers.kind, one),
                answers.said(found.to_json()),
            )
            for one, found in zip(inputs, predictions, strict=True)
        ]

    def reply_receipt(
        self, version: Version, chat: ChatRecord, reply: str, *, with_documents: bool
    ) -> str:
        """Makes the receipt of a reply to a conversation."""
        drew_on = DOCUMENTS if with_documents else PERSONAL if version.is_personal else ""
        origin = AnswerOrigin(version.digest, drew_on)
        return receipt(self.store.secret, origin, _turns(chat), {"reply": reply})

    def take(self, body: Any, version: Version, caller: str) -> str:
        """Checks and stores a piece of feedback.

        Args:
            body: The JSON that the caller sent.
            version: The version that is served now; its task decides which corrections are valid.
            caller: The caller's name.

        Returns:
            The feedback's id.

        Raises:
            BodyError: A field is missing, unknown or invalid.
            DataError: Input, answer or correction do not fit the model's task.
            StoreFullError: The caller already has the largest allowed number of rows.
            BadFileError: The store cannot be written.
        """
        if not isinstance(body, dict) or not isinstance(body.get("is_right"), bool):
            raise BodyError(400, 'an object with "is_right": true or false is needed')
        if unknown := sorted(set(body) - FIELDS):
            raise BodyError(400, f"{unknown[0]!r:.60}: unknown field; leave it out")
        if body.get("consent") is not True:
            raise BodyError(400, NO_CONSENT)
        unit, person = _identifier(body, "unit"), _identifier(body, "person")
        if unit is None and person is None:
            raise BodyError(
                400,
                "unit, person: both missing; give the id of the record that the text is from (its "
                "cloister_unit), or the person's id, since ε protects records or persons by it",
            )
        answers = answers_of(version)
        asked = kept(answers.kind, body.get("input"))
        answer = answers.said(body.get("answer"))
        shown = body.get("receipt")
        origin = (
            origin_of(self.store.secret, shown, asked, answer) if isinstance(shown, str) else None
        )
        if origin is None:
            raise BodyError(
                400,
                "receipt: not made for this input and answer; send input, answer and receipt "
                "unchanged",
            )
        is_right = body["is_right"]
        if is_right and body.get("correction") is not None:
            raise BodyError(400, "correction: given with is_right = true; leave it out")
        right = answers.agreed(answer) if is_right else answer
        correction = answers.corrected(right if is_right else body.get("correction"), asked)
        content = Content(
            kind=answers.kind,
            version=origin.version,
            asked=asked,
            answer=answer,
            is_right=is_right,
            correction=correction,
            unit=unit,
            person=person,
            drew_on=origin.drew_on,
        )
        return self.store.add(content, caller, datetime.now(UTC))


def answers_of(version: Version) -> Answers:
    """Returns the answers that are valid for a version, by which corrections are checked."""
    task, model = version.model.workspace.task, version.model
    if isinstance(task, Recommendation):
        return Answers(task.record_kind, tuple(task.catalogue.ids))
    scale = task.scale if isinstance(task, Scoring) else None
    return Answers(task.record_kind, tuple(model.labels or task.labels), scale)


def kept(kind: RecordKind, given: Any) -> Given:
    """Returns an input in the form that the store keeps.

    Args:
        kind: Kind of records that the task reads.
        given: The input as a caller sends it for a prediction.

    Raises:
        DataError: The input is empty or of another kind.
    """
    if kind == "tokens":
        return list(as_sentence(given, 1).words)
    if kind == "messages":
        return _turns(as_chat(given, 1))
    if kind == "pairs":
        return list(as_pair(given, 1))
    if kind == "items":
        return list(as_items(given, 1))
    return as_plain_text(given, 1)


def _turns(chat: ChatRecord) -> list[Any]:
    """Returns the turns of a conversation before the reply."""
    return [{"role": turn.role, "content": turn.content} for turn in chat.messages[:-1]]


def _identifier(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    # A blank at an end would make another id, so one person would be two units.
    if not isinstance(value, str) or value != value.strip() or not _ID(value):
        raise BodyError(400, f"{name}: needed is a text {_ID}, without blanks at its ends")
    return value
