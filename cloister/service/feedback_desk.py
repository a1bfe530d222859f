"""Takes what callers say of answers: checks that the answer is this service's, and keeps it."""

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
    "consent: true is needed: whoever the text is about agrees that question, answer and "
    "correction are kept at this institution and may train its next model; nothing was kept"
)


@dataclass(frozen=True)
class FeedbackDesk:
    """Gives receipts for answers, and takes feedback for them.

    Attributes:
        store: The site's.
    """

    store: FeedbackStore

    def receipts(
        self, version: Version, inputs: Sequence[Input], predictions: Sequence[Prediction]
    ) -> list[str]:
        """The receipts of one request's predictions, in order."""
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
        """The receipt of a reply to a conversation."""
        drew_on = DOCUMENTS if with_documents else PERSONAL if version.is_personal else ""
        origin = AnswerOrigin(version.digest, drew_on)
        return receipt(self.store.secret, origin, _turns(chat), {"reply": reply})

    def take(self, body: Any, version: Version, caller: str) -> str:
        """Checks and keeps a piece of feedback.

        Args:
            body: What the caller sent.
            version: The one that is served now; its task says what may be right.
            caller: Its name.

        Returns:
            The feedback's id.

        Raises:
            BodyError: It cannot be kept as it is.
            DataError: Input, answer or correction are not of the model's task.
            StoreFullError: The caller has as much there as it may.
            BadFileError: The store cannot be written.
        """
        if not isinstance(body, dict) or not isinstance(body.get("is_right"), bool):
            raise BodyError(400, 'an object with "is_right": true or false is needed')
        if unknown := sorted(set(body) - FIELDS):
            raise BodyError(400, f"{unknown[0]!r:.60}: no field of feedback")
        if body.get("consent") is not True:
            raise BodyError(400, NO_CONSENT)
        unit, person = _identifier(body, "unit"), _identifier(body, "person")
        if unit is None and person is None:
            raise BodyError(
                400,
                "unit, person: give the id of the record whose text it is (its cloister_unit), or "
                "of the person: without one, nobody could be protected as one",
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
                "receipt: not that of this input and answer; send receipt, input and answer as "
                "they were given and received",
            )
        is_right = body["is_right"]
        if is_right and body.get("correction") is not None:
            raise BodyError(400, "correction: given of an answer that was right; leave it out")
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
    """What may be right of a version's answers."""
    task, model = version.model.workspace.task, version.model
    if isinstance(task, Recommendation):
        return Answers(task.record_kind, tuple(task.catalogue.ids))
    scale = task.scale if isinstance(task, Scoring) else None
    return Answers(task.record_kind, tuple(model.labels or task.labels), scale)


def kept(kind: RecordKind, given: Any) -> Given:
    """An input in the form in which it is kept.

    Args:
        kind: What the task reads.
        given: As a caller sends it to be predicted for.

    Raises:
        DataError: It is empty or of another kind.
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
    """The turns before the place of the reply."""
    return [{"role": turn.role, "content": turn.content} for turn in chat.messages[:-1]]


def _identifier(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    # With a blank more it would be somebody else, and one person two units.
    if not isinstance(value, str) or value != value.strip() or not _ID(value):
        raise BodyError(400, f"{name}: a text {_ID} is needed, without blanks around it")
    return value
