"""A receipt proves that an answer is the service's own, and accepts nothing else."""

import json

import pytest

from cloister.feedback.receipts import DOCUMENTS, PERSONAL, AnswerOrigin, origin_of, receipt

SECRET = bytes(range(32))
ASKED, ANSWER = "pain", {"label": "x"}


@pytest.mark.parametrize("drew_on", ["", DOCUMENTS, PERSONAL])
def test_a_receipt_tells_version_and_mark(drew_on: str) -> None:
    origin = AnswerOrigin("0123456789ab", drew_on)
    assert origin_of(SECRET, receipt(SECRET, origin, ASKED, ANSWER), ASKED, ANSWER) == origin


def test_no_other_question_answer_mark_or_secret_is_taken() -> None:
    shown = receipt(SECRET, AnswerOrigin("0123456789ab", DOCUMENTS), ASKED, ANSWER)
    assert origin_of(SECRET, shown.replace(".d.", ".n."), ASKED, ANSWER) is None
    assert origin_of(SECRET, shown.replace("0123", "3210"), ASKED, ANSWER) is None
    assert origin_of(SECRET, shown, "no pain", ANSWER) is None
    assert origin_of(SECRET, shown, ASKED, {"label": "y"}) is None
    assert origin_of(bytes(32), shown, ASKED, ANSWER) is None
    for hostile in ("", ".", "..", "a.n", "a.n.", "é.n.é", "\ud800.n.0", "a.x.0", "a" * 10**6):
        assert origin_of(SECRET, hostile, ASKED, ANSWER) is None


def test_a_score_is_the_same_after_it_went_through_json() -> None:
    for score in (0.1, 1.0, 2.0000000000000004, 1e-7):
        answer = {"score": score}
        again = {"score": float(json.loads(json.dumps(score)))}
        assert receipt(SECRET, AnswerOrigin("v"), ASKED, answer) == receipt(
            SECRET, AnswerOrigin("v"), ASKED, again
        )
